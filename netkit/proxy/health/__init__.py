"""Whether a node is worth sending traffic to: health of the proxy itself, and of Services with local endpoints."""
