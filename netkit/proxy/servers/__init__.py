"""The HTTP servers of a proxy: its health, its metrics."""
