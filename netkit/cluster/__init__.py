"""One cluster as a whole: its configuration, its processes, up, down and status.

The only package of `netkit` that starts servers and may import the control plane's insides.
"""
