"""Stream protocols of exec, attach and port-forward: SPDY/3.1 and Kubernetes' WebSocket channels, without I/O."""
