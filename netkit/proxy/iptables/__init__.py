"""The iptables mode: chains and rules of kube-proxy's iptables back end, rendered, loaded and read back."""
