"""One packet's way through the rules of the userspace mode, and the proxy process behind them. Pure.

Rules only lead to the port on which the process listens for the service port; the process chooses the endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netkit.proxy.explain.iptables_path import Walk
from netkit.proxy.explain.iptables_rule import Rule, parse_rule
from netkit.proxy.explain.steps import Action, Packet, Step, Subject
from netkit.proxy.listing import Section

PROXY = "proxy of "
"""How the name of the section begins that holds the endpoints of the process. It is not in the kernel."""


def userspace_path(sections: Sequence[Section], packet: Packet, subject: Subject) -> tuple[Step, ...]:
    """The rules that `packet` meets, and the endpoints of the process they lead to."""
    walk = Walk(sections, packet, subject, _meaning)
    hook, side = ("OUTPUT", "HOST") if packet.sent_here else ("PREROUTING", "CONTAINER")
    led = walk.chain(f"nat KUBE-PORTALS-{side}", hook)
    if not led and packet.for_node:
        led = walk.chain(f"nat KUBE-NODEPORT-{side}", hook)
        if led and not packet.sent_here:
            port = _proxy_port(parse_rule(walk.steps[-1].entry))
            walk.flowing = replace(walk.flowing, packet=replace(packet, port=port))
            walk.chain("filter KUBE-NODEPORT-NON-LOCAL", "INPUT")
    # The rules translate to the process, not to an endpoint.
    steps = [
        replace(step, action=Action.LEAD, endpoint="") if step.action is Action.TRANSLATE else step
        for step in walk.steps
    ]
    return (*steps, *(_turns(sections, subject) if led else ()))


def _turns(sections: Sequence[Section], subject: Subject) -> list[Step]:
    """What the process does with the connection."""
    section = next((section for section in sections if section.name.startswith(PROXY)), None)
    if section is None:
        return []
    if not section.entries:
        said = f"{subject.service}: the process finds no ready endpoint to call"
        return [Step("process", section.name, "", Action.REFUSE, said)]
    count = len(section.entries)
    turn = "the only one" if count == 1 else f"one of {count} in turn"
    return [
        Step(
            "process",
            section.name,
            entry,
            Action.TRANSLATE,
            f"{subject.service}: calls endpoint {subject.endpoint(entry)}, {turn}",
            count == 1,
            entry,
        )
        for entry in section.entries
    ]


def _proxy_port(rule: Rule) -> int:
    to = rule.arguments.get("--to-ports") or rule.arguments.get("--to-destination", "0")
    return int(to.rpartition(":")[2])


def _meaning(section: str, rule: Rule, subject: Subject, endpoint: str = "") -> str:
    """Why a rule is there."""
    chain = section.partition(" ")[2]
    port = _proxy_port(rule)
    if chain == "KUBE-NODEPORT-NON-LOCAL":
        return f"{subject.service}: packets to its NodePort may come in"
    what = f"NodePort {subject.port.node_port}" if chain.startswith("KUBE-NODEPORT") else "address"
    return f"{subject.service}: its {what} leads to the proxy process, which listens on port {port} for it"
