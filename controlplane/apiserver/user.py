"""Who asks: the identity that authentication finds and that authorization, admission and audit read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class UserInfo:
    """One identity, in the words of `authentication.k8s.io`."""

    name: str = "system:anonymous"
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = field(default_factory=dict)


MASTERS = "system:masters"
"""The group that may do everything."""

ANONYMOUS = UserInfo()
LOOPBACK_USER = UserInfo("system:apiserver", groups=("system:masters", "system:authenticated"))
"""The API server itself, e.g. while it makes its own Service."""
