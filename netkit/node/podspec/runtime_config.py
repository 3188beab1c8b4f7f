"""What a pod's manifest asks of the network: ports of its node, and limits of bandwidth. Pure.

As kubelet and containerd read it: ports of containers and of sidecars, `kubernetes.io/ingress-bandwidth` and
`kubernetes.io/egress-bandwidth`.
"""

from __future__ import annotations

from typing import Final

from controlplane.errors import Object
from controlplane.meta import objects
from controlplane.meta.quantity import Quantity
from netkit.podnet.pod import PortMapping, RuntimeConfig, SandboxFailed

_INGRESS: Final = "kubernetes.io/ingress-bandwidth"
_EGRESS: Final = "kubernetes.io/egress-bandwidth"
_LEAST, _MOST = 1_000, 10**15
"""Kubernetes takes bandwidths from 1k to 1P."""


class BadBandwidth(SandboxFailed):
    """An annotation that is no bandwidth."""


def runtime_config(pod: Object) -> RuntimeConfig:
    """The wishes of a pod that has a network of its own. Raises BadBandwidth."""
    spec, notes = pod["spec"], objects.annotations(pod)
    containers = [
        *(item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"),
        *(spec.get("containers") or ()),
    ]
    ports = [
        PortMapping(
            int(port["hostPort"]),
            int(port["containerPort"]),
            str(port.get("protocol") or "TCP").lower(),
            str(port.get("hostIP") or ""),
        )
        for container in containers
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]
    return RuntimeConfig(
        tuple(dict.fromkeys(ports)), _rate(_INGRESS, notes.get(_INGRESS)), _rate(_EGRESS, notes.get(_EGRESS))
    )


def _rate(name: str, text: str | None) -> int:
    """Bits a second, 0 without the annotation."""
    if not text:
        return 0
    try:
        rate = int(Quantity.parse(text).value)
    except ValueError as error:
        raise BadBandwidth(f"{name}: {error}") from error
    if not _LEAST <= rate <= _MOST:
        raise BadBandwidth(f"{name}: {text} is not between 1k and 1P")
    return rate
