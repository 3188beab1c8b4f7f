"""Who asks: the identity that authentication finds and that authorization, admission and audit read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SYSTEM_ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """One identity, in the words of `authentication.k8s.io`."""

    name: str = SYSTEM_ANONYMOUS
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


ANONYMOUS = UserInfo(groups=(UNAUTHENTICATED,))
LOOPBACK_USER = UserInfo("system:apiserver", groups=("system:masters", AUTHENTICATED))
"""The API server itself, e.g. while it makes its own Service."""
