"""The pod network of a node: addresses, sandboxes, the overlay between nodes, masquerading."""
