"""KubeProxyConfiguration v1alpha1: reading, defaults, validation, writing, flags, and what a proxy makes of it."""
