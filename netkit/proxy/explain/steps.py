"""The rules a packet meets, one after the other: what every mode's reader is given, and what it returns.

Readers (`iptables_path`, ...) follow one packet through the sections that serve a port. Pure values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from netkit.proxy.addresses import Address
from netkit.proxy.services import Protocol, ServicePort


class Match(IntEnum):
    """Whether a rule takes a packet. MAYBE: chance, or a memory of earlier packets, decides."""

    NO = 0
    MAYBE = 1
    YES = 2


class Action(StrEnum):
    """What a rule does with the packets it takes."""

    LEAD = "lead"
    """To another chain or a virtual server."""
    CHOOSE = "choose"
    """One endpoint of several."""
    MARK = "mark"
    """For a new source on the way out."""
    TRANSLATE = "translate"
    """The destination becomes an endpoint."""
    MASQUERADE = "masquerade"
    """The source becomes the node's."""
    REFUSE = "refuse"
    DROP = "drop"
    ACCEPT = "accept"
    RETURN = "return"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of the connection, as it comes to the node.

    `interface` is empty for packets the node sends itself. `for_node` says that the destination is an address of
    the node; `from_node` that the source is one; `bridged` that it comes from a port of a bridge, as pods' do.
    """

    source: Address
    destination: Address
    port: int
    protocol: Protocol
    interface: str = "eth0"
    from_node: bool = False
    for_node: bool = False
    bridged: bool = False

    @property
    def sent_here(self) -> bool:
        """Whether the node itself sends it, so that it comes by the hook OUTPUT."""
        return not self.interface


@dataclass(frozen=True, slots=True)
class Subject:
    """What rules are about, so that they can be told in words. `pods` names endpoints: target to `pod on node`."""

    port: ServicePort
    node: str
    pods: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """`Service default/web, port http`."""
        name = self.port.name
        named = f", port {name.port}" if name.port else ""
        return f"Service {name.namespace}/{name.name}{named}"

    def endpoint(self, target: str) -> str:
        """`pod web-1 on node2 (10.244.2.3:8080)`, or the target alone when nobody knows its pod."""
        known = self.pods.get(target)
        return f"{known} ({target})" if known else target


@dataclass(frozen=True, slots=True)
class Step:
    """One rule or entry that the packet meets and that takes it (or may).

    `hook` is where in the kernel, `section` and `entry` are the rule as `netkit proxy rules` shows it (`entry` empty:
    it is the section's being there that counts), `meaning` says why it is there. `certain` is False where chance or
    memory decides; `endpoint` is set where one is meant. `standing` is False when the rule should be in the kernel
    and is not.
    """

    hook: str
    section: str
    entry: str
    action: Action
    meaning: str
    certain: bool = True
    endpoint: str = ""
    standing: bool = True
