"""kube-proxy's first mode: connections are redirected to a process that carries them on. See README.md."""
