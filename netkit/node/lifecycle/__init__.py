"""The life of a pod as pure decisions: what to start and stop next, and what its status says."""
