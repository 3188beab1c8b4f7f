"""What a pod is to the network, what it gets, and the names of its things. Pure values.

`PodRef` goes into `PodNetwork.add`, `Sandbox` comes out. Names are built so that they are never used twice:
the kernel removes links some 15-60 ms after their namespace, and a name still taken by a dying link cannot be
given again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

_MAX_FILE_NAME: Final = 255
_LINK: Final = re.compile("veth[0-9a-f]{8}")


class SandboxFailed(Exception):
    """No network for a pod, for a reason that is not the kernel's: the message says which. May work another time."""


@dataclass(frozen=True, slots=True)
class PodRef:
    """A pod by namespace, name and uid."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the node that leads to a port of a pod. `protocol` is tcp, udp or sctp; `host_ip` "" stands for every
    address of the node.
    """

    host_port: int
    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """What a pod asks of the network besides an address: CNI's runtimeConfig. Rates in bits a second, 0 for no limit;
    only the mode `external` has plug-ins that heed them.
    """

    ports: tuple[PortMapping, ...] = ()
    ingress_rate: int = 0
    egress_rate: int = 0


NO_WISHES: Final = RuntimeConfig()


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's place in the network: namespace name ("" is the machine's own), addresses, MTU in bytes.

    `link` is the node's end of its cable, "" for a pod on its node's network.
    """

    netns: str
    addresses: tuple[str, ...]
    mtu: int
    link: str = ""


def sandbox_name(cluster: str, pod: PodRef) -> str:
    """Name of the pod's network namespace: `<cluster>.<namespace>.<pod>.<first six of the uid>`.

    A pod name too long for a file name is cut and given a hash.
    """
    name = f"{cluster}.{pod.namespace}.{pod.name}.{pod.uid[:6]}"
    if len(name) <= _MAX_FILE_NAME:
        return name
    digest = hashlib.sha256(pod.name.encode()).hexdigest()[:8]
    room = _MAX_FILE_NAME - len(f"{cluster}.{pod.namespace}..{pod.uid[:6]}") - len(digest) - 1
    return f"{cluster}.{pod.namespace}.{pod.name[:room]}-{digest}.{pod.uid[:6]}"


def is_link_name(name: str) -> bool:
    """Whether `link_name` may have made the name."""
    return _LINK.fullmatch(name) is not None


def link_name(uid: str, serial: int) -> str:
    """Name of the node's end of a sandbox's cable: `veth` and eight hex digits.

    `serial` counts the sandboxes of a node, so that a pod whose sandbox is made again gets another name.
    """
    return "veth" + hashlib.sha256(f"{uid}/{serial}".encode()).hexdigest()[:8]
