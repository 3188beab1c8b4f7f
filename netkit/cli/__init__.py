"""The command line: parses, calls `netkit.cluster` and its siblings, prints. No logic, and no heavy import on top."""
