"""How authenticators see the cluster's objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controlplane.errors import Object

Lookup = Callable[[str, str, str, str], Awaitable[Object | None]]
"""(group, plural, namespace, name) -> the stored object, read-only, or None."""
