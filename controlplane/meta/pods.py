"""What controllers, scheduler and proxies ask about a Pod, with upstream's meaning of the words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controlplane.meta import conditions
from controlplane.meta.objects import dig, is_being_deleted
from controlplane.meta.timestamps import parse


def phase(pod: Mapping[str, Any]) -> str:
    """`status.phase`, empty before the server has set it."""
    return str(dig(pod, "status", "phase", default=""))


def is_finished(pod: Mapping[str, Any]) -> bool:
    """Whether all containers have ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Mapping[str, Any]) -> bool:
    """Whether it counts as a replica: neither finished nor being deleted."""
    return not is_finished(pod) and not is_being_deleted(dict(pod))


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether its condition Ready is True."""
    return conditions.status_of(pod, "Ready") == "True"


def is_available(pod: Mapping[str, Any], min_ready_seconds: int, moment: datetime) -> bool:
    """Whether it has been ready for at least that long at `moment` (aware)."""
    return is_ready(pod) and seconds_until_available(pod, min_ready_seconds, moment) <= 0


def seconds_until_available(pod: Mapping[str, Any], min_ready_seconds: int, moment: datetime) -> float:
    """How long a ready pod still has to stay ready until it is available; 0 or less when it is."""
    if min_ready_seconds <= 0:
        return 0.0
    condition = conditions.of(pod, "Ready") or {}
    since = condition.get("lastTransitionTime")
    if not since:
        return float(min_ready_seconds)
    return min_ready_seconds - (moment - parse(since)).total_seconds()


def find_port(pod: Mapping[str, Any], target_port: int | str, protocol: str) -> int | None:
    """The number a Service's target port means for this pod; None when no container names such a port."""
    if isinstance(target_port, int):
        return target_port
    spec = pod.get("spec") or {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for port in container.get("ports") or ():
            if port.get("name") == target_port and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return None
