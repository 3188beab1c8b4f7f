"""Bootstrap tokens: expired ones are deleted, and `cluster-info` is signed by those that are for that."""
