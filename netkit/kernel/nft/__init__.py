"""nf_tables over netlink: rules and sets of one table as values, as bytes for the kernel, and as nft's own text."""
