"""Packet-flow rows: which connection through a node's kube-proxy ends where, as a table that anyone can extend.

`README.md` is the format. `reader` turns a file into the values of `format`, `world` builds the network that all rows
of a file share, `traffic` makes the connections, `runner` brings a mode's rules into it and judges what was seen.
"""
