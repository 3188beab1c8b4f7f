"""What the API server does for each verb: one request in, one answer out, over the registry.

`core.py` chooses the handler. Handlers know representations and wire forms; the rules of objects are the registry's.
"""
