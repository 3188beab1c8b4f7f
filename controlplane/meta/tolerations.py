"""Taints and tolerations: does a pod put up with what a node says against it? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether this toleration covers the taint. Without effect it covers all effects, without key all keys."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    """Whether one of the tolerations covers the taint."""
    return any(covers(toleration, taint) for toleration in tolerations)
