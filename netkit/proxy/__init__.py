"""kube-proxy: a model of Services and endpoints for all modes, rules rendered of it, and the agent."""
