"""The emulated hardware of a cluster: a switch, machines, cables, and one cable to the machine itself."""
