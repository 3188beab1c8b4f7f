"""Kubernetes' object semantics over the store: create, get, list, watch, update, patch, delete. No HTTP here.

`registry.py` holds the `Registry` the HTTP layer talks to; each verb's rules live in a module of their own.
"""

from controlplane.apiserver.registry.planting import Seed
from controlplane.apiserver.registry.registry import Registry
from controlplane.apiserver.registry.requests import (
    DeleteOptions,
    FrameType,
    ListOptions,
    ListResult,
    PatchType,
    Predicate,
    Propagation,
    VersionMatch,
    WatchFrame,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.user import LOOPBACK_USER, UserInfo
from controlplane.store.cache import Stored

__all__ = [
    "LOOPBACK_USER",
    "DeleteOptions",
    "FrameType",
    "ListOptions",
    "ListResult",
    "PatchType",
    "Predicate",
    "Propagation",
    "Registry",
    "Seed",
    "Stored",
    "UserInfo",
    "VersionMatch",
    "WatchFrame",
    "WatchOptions",
    "WriteOptions",
]
