"""What a user may do: decisions, the chain of authorizers, and one module per authorizer.

`modes.py` puts the chain together from the settings; the core, impersonation and the review kinds ask it.
"""

from controlplane.apiserver.authz.attributes import (
    AUTHENTICATED,
    MASTERS,
    NODES,
    Attributes,
    Authorizer,
    Decision,
    Requirement,
    RulesAnswer,
    Verdict,
    forbidden,
)
from controlplane.apiserver.authz.chain import AlwaysAllow, AlwaysDeny, Chain

__all__ = [
    "AUTHENTICATED",
    "MASTERS",
    "NODES",
    "AlwaysAllow",
    "AlwaysDeny",
    "Attributes",
    "Authorizer",
    "Chain",
    "Decision",
    "Requirement",
    "RulesAnswer",
    "Verdict",
    "forbidden",
]
