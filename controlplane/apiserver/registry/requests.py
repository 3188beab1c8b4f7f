"""What callers ask of the registry and what they get back: plain values, no behaviour.

The HTTP layer builds these from queries and bodies; the registry's modules read them. Nothing here knows HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.apiserver.admission.plugin import Remarks
from controlplane.apiserver.user import ANONYMOUS, UserInfo
from controlplane.store.events import FrameType, Stored, WatchFrame
from controlplane.store.watcher import Predicate

__all__ = [
    "DeleteOptions",
    "FrameType",
    "ListOptions",
    "ListResult",
    "PatchType",
    "Predicate",
    "Propagation",
    "Remarks",
    "Stored",
    "UserInfo",
    "VersionMatch",
    "WatchFrame",
    "WatchOptions",
    "WriteOptions",
]


class PatchType(StrEnum):
    """The patch formats, valued as their media types."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Propagation(StrEnum):
    """What happens to the children of a deleted owner. Valued as `DeleteOptions.propagationPolicy`."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


class VersionMatch(StrEnum):
    """`resourceVersionMatch`."""

    NOT_OLDER_THAN = "NotOlderThan"
    EXACT = "Exact"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of create, update and patch.

    `dry_run` does everything but store. `remarks` collects what admission says.
    """

    dry_run: bool = False
    field_manager: str = ""
    user: UserInfo = ANONYMOUS
    remarks: Remarks = field(default_factory=Remarks)


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Options of delete.

    `grace_seconds` None = the kind's own default; negative counts as 1. `uid` and `resource_version` are
    preconditions, empty = none. `propagation` None = as the object's finalizers say, else background.
    """

    dry_run: bool = False
    user: UserInfo = ANONYMOUS
    grace_seconds: int | None = None
    propagation: Propagation | None = None
    uid: str = ""
    resource_version: str = ""
    remarks: Remarks = field(default_factory=Remarks)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options of list, as in the query.

    `predicate` decides by the object whether it is listed (label and field selectors joined; None = all).
    `limit` 0 = no paging. `resource_version` "" = newest, "0" = whatever is cached, "N" as `match` says.
    """

    predicate: Predicate | None = None
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    match: VersionMatch | None = None


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """Options of watch.

    `resource_version` "" or "0" = ADDED for all present, then live; "N" = all after N. `name` watches one
    object. `timeout_seconds` 0 = no end. `bookmarks` = allowWatchBookmarks. With `send_initial_events` the
    present objects come first and then a BOOKMARK frame with `initial_events_end` (`match` must be NotOlderThan).
    """

    predicate: Predicate | None = None
    name: str = ""
    resource_version: str = ""
    match: VersionMatch | None = None
    bookmarks: bool = False
    send_initial_events: bool = False
    timeout_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ListResult:
    """One page. `remaining` is None when unknown (with a predicate) or when the page is the last."""

    items: Sequence[Stored]
    revision: int
    continue_token: str = ""
    remaining: int | None = None
