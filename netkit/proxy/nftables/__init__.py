"""The nftables mode of kube-proxy: one table per family, kept by transactions over netlink."""
