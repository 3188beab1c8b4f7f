"""What a pod asks of a node: resources and host ports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from controlplane.errors import Object
from controlplane.meta.quantity import Quantity

Amounts = dict[str, int]
"""Resource name to amount: thousandths of a core for cpu, whole units (bytes, pieces) for all else."""

HostPort = tuple[str, str, int]
"""Host address, protocol, port."""

_ANY_ADDRESS = "0.0.0.0"
_DEFAULT_MILLI_CPU = 100
_DEFAULT_MEMORY = 200 * 1024 * 1024


@lru_cache(maxsize=4096)
def _milli(text: str) -> int:
    return Quantity.parse(text).milli()


@lru_cache(maxsize=4096)
def _whole(text: str) -> int:
    return Quantity.parse(text).whole()


def amounts(resources: Mapping[str, Any] | None) -> Amounts:
    """A resource list of quantities as numbers."""
    return {
        name: _milli(str(value)) if name == "cpu" else _whole(str(value))
        for name, value in (resources or {}).items()
    }


def pod_requests(pod: Object) -> Amounts:
    """What the pod needs at most at any moment of its life.

    Containers and sidecars add up; ordinary init containers run one after the other beside the sidecars
    started before them.
    """
    return _requests(pod, {})


def pod_requests_for_scores(pod: Object) -> Amounts:
    """Like `pod_requests`, but containers that ask for nothing count with a small amount, so that they
    spread.
    """
    return _requests(pod, {"cpu": _DEFAULT_MILLI_CPU, "memory": _DEFAULT_MEMORY})


def _requests(pod: Object, floor: Amounts) -> Amounts:
    spec = pod.get("spec") or {}
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _add(total, _of(container, floor))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        wanted = _of(container, floor)
        if container.get("restartPolicy") == "Always":
            _add(total, wanted)
            _add(sidecars, wanted)
            wanted = dict(sidecars)
        else:
            _add(wanted, sidecars)
        for name, amount in wanted.items():
            peak[name] = max(peak.get(name, 0), amount)
    for name, amount in peak.items():
        total[name] = max(total.get(name, 0), amount)
    _add(total, amounts(spec.get("overhead")))
    return total


def _of(container: Object, floor: Amounts) -> Amounts:
    found = amounts((container.get("resources") or {}).get("requests"))
    return {**floor, **found}


def _add(total: Amounts, more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def host_ports(pod: Object) -> frozenset[HostPort]:
    """The ports on the node that the pod occupies."""
    return frozenset(
        (port.get("hostIP") or _ANY_ADDRESS, port.get("protocol", "TCP"), int(port["hostPort"]))
        for container in (pod.get("spec") or {}).get("containers") or ()
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )


def ports_conflict(wanted: Iterable[HostPort], used: Iterable[HostPort]) -> bool:
    """Whether a wanted port is taken; the unspecified address covers all others."""
    taken = list(used)
    for address, protocol, port in wanted:
        for other, used_protocol, used_port in taken:
            same = (protocol, port) == (used_protocol, used_port)
            if same and (address == other or _ANY_ADDRESS in (address, other)):
                return True
    return False
