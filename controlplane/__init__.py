"""The Kubernetes API and everything that only talks to it.

Nothing in here needs root or touches the kernel, and nothing in here imports `netkit`.
"""
