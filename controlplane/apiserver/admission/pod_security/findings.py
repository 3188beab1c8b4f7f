"""The vocabulary of the checks: what a check sees, what it says, and how upstream words lists of names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.errors import Object
from controlplane.resources.fieldpath import quoted

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod or a pod template."""

    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.get("annotations") or _NOTHING

    @property
    def security(self) -> Mapping[str, Any]:
        """The pod's own securityContext."""
        return self.spec.get("securityContext") or _NOTHING

    @property
    def is_windows(self) -> bool:
        return (self.spec.get("os") or _NOTHING).get("name") == "windows"

    def containers(self) -> Iterator[Object]:
        """Init containers, containers, ephemeral containers."""
        for field in ("initContainers", "containers", "ephemeralContainers"):
            yield from self.spec.get(field) or ()


def security_of(container: Object) -> Mapping[str, Any]:
    return container.get("securityContext") or _NOTHING


@dataclass(frozen=True, slots=True)
class Finding:
    """One violated check."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


CheckPod = Callable[[PodView], Finding | None]


def plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


def quoted_list(items: Iterable[object]) -> str:
    """`"a", "b"`."""
    return ", ".join(quoted(str(item)) for item in items)


def named(names: list[str]) -> str:
    """`container "a"` or `containers "a", "b"`."""
    return f"{plural('container', 'containers', len(names))} {quoted_list(names)}"


def setters(pod: bool, containers: list[str]) -> str:
    """Who sets something: `pod and container "a"`."""
    parts = (["pod"] if pod else []) + ([named(containers)] if containers else [])
    return " and ".join(parts)
