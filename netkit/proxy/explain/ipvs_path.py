"""One packet's way through the rules, sets and virtual servers of the IPVS mode. Pure: reads what serves a port.

A service address is an address of the node (on kube-ipvs0), so packets to it come by INPUT, and IPVS takes them there;
what the node itself sends it takes in OUTPUT. Rules only mark and guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netkit.proxy.addresses import Address, host_port, parse_address
from netkit.proxy.explain.iptables_path import Walk
from netkit.proxy.explain.ipvs_words import meaning, server_meaning
from netkit.proxy.explain.steps import Action, Packet, Step, Subject
from netkit.proxy.listing import Section


def ipvs_path(sections: Sequence[Section], packet: Packet, subject: Subject) -> tuple[Step, ...]:
    """The rules and the virtual server that `packet` meets, in order."""
    walk = Walk(sections, packet, subject, meaning)
    walk.chain("nat KUBE-SERVICES", "OUTPUT" if packet.sent_here else "PREROUTING")
    if packet.sent_here:
        _virtual_server(walk, sections, packet, subject, "OUTPUT")
        walk.chain("filter KUBE-IPVS-OUT-FILTER", "OUTPUT")
    else:
        _device(walk, sections, packet, subject)
        for chain in ("KUBE-PROXY-FIREWALL", "KUBE-IPVS-FILTER"):
            if not walk.over:
                walk.chain(f"filter {chain}", "INPUT")
        if not walk.over:
            _virtual_server(walk, sections, packet, subject, "INPUT")
    if walk.flowing.translated and not walk.over:
        walk.chain("nat KUBE-POSTROUTING", "POSTROUTING")
    return tuple(walk.steps)


def _device(walk: Walk, sections: Sequence[Section], packet: Packet, subject: Subject) -> None:
    """What makes the node take packets to a service address for its own."""
    entry = str(packet.destination)
    for section in sections:
        if section.name.startswith("device ") and entry in section.entries:
            said = f"{subject.service}: the node has its address, so packets to it come in"
            walk.note(Step("routing", section.name, entry, Action.LEAD, said))


def _virtual_server(
    walk: Walk, sections: Sequence[Section], packet: Packet, subject: Subject, hook: str
) -> None:
    """IPVS: choose a real server, or refuse."""
    name = f"{host_port(packet.destination, packet.port)}/{packet.protocol}"
    section = next((section for section in sections if section.name == name), None)
    if section is None:
        return
    serving = [entry for entry in section.entries if not entry.endswith(" weight 0")]
    if not serving:
        said = f"{subject.service}: a virtual server without real servers refuses by an ICMP error"
        walk.note(Step(hook, name, "", Action.REFUSE, said))
        walk.over = True
        return
    targets = [entry.split()[0] for entry in serving]
    for entry, target in zip(serving, targets, strict=True):
        said = server_meaning(section.note, target, len(serving), subject)
        walk.note(Step(hook, name, entry, Action.TRANSLATE, said, len(serving) == 1, target))
    walk.flowing = replace(walk.flowing, translated=True, targets=tuple(map(_split, targets)))


def _split(target: str) -> tuple[Address, int]:
    host, _, port = target.rpartition(":")
    return parse_address(host.strip("[]")), int(port)
