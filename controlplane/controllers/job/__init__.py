"""The Job controller: runs pods to their end and counts each of them exactly once.

`counting` and `verdict` are pure (what is there, is the Job over), `policies`, `backoff` and `pods` hold the rules,
`tracking` moves finished pods into the status before their finalizers go, `controller` is the loop.
"""
