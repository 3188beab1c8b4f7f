"""Certificate requests on their way: nodes' own are approved, approved ones are signed, old ones are deleted.

`signers.py` says which requests a signer takes, `issuing.py` makes the certificate; both are pure.
"""
