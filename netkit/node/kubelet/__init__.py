"""The kubelet API of a node: logs, exec, attach and port-forward over HTTPS."""
