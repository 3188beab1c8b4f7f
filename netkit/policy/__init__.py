"""NetworkPolicy: who may reach whom, written into each node's kernel."""
