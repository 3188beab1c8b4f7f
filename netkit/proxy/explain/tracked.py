"""UDP flows to a service port that connection tracking remembers, and what the cleaner thinks of them. Pure.

A tracked flow never meets the rules again, so it may go where they would not lead it; `proxy.conntrack` judges.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from netkit.kernel.conntrack import Entry
from netkit.proxy.addresses import host_port
from netkit.proxy.conntrack import UDPServices
from netkit.proxy.services import ServicePortName
from netkit.proxy.state import ProxyState


@dataclass(frozen=True, slots=True)
class TrackedFlow:
    """One flow: who called what, and who answers. `stale`: the proxy removes it, `because` of what."""

    client: str
    called: str
    answering: str
    stale: bool
    because: str


def tracked_flows(
    entries: Iterable[Entry], state: ProxyState, name: ServicePortName
) -> tuple[TrackedFlow, ...]:
    """The flows of one UDP service port, stale ones first. `entries` are the node's, of one family."""
    services = UDPServices.of(state)
    found = []
    for entry in entries:
        judgement = services.judge(entry)
        if judgement.port != name:
            continue
        original, reply = entry.original, entry.reply
        found.append(
            TrackedFlow(
                client=_place(original.source, original.source_port),
                called=_place(original.destination, original.destination_port),
                answering=_place(reply.source, reply.source_port),
                stale=judgement.stale,
                because=judgement.reason,
            )
        )
    return tuple(sorted(found, key=lambda flow: (not flow.stale, flow.client, flow.called)))


def _place(packed: bytes, port: int) -> str:
    return host_port(ipaddress.ip_address(packed), port)
