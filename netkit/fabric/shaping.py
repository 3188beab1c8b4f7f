"""What cables do to packets beyond carrying them: rate, delay, jitter, loss, in both directions.

Where the kernel has netem, it does all of it: at the machine's end for what leaves, at the switch's port for what
comes. Elsewhere the rate is kept by tbf at both ends, and the switch does the rest, for IP packets: its bridges show
them to its packet filter (nf_call_iptables), where chains NETKIT-LINKS-IN (what comes from a cable) and -OUT (what goes
to one) of `mangle` drop packets at random and hand the others to a process that holds them back
(`kernel.packet_queue`). Not in the machines themselves: TCP of the machine would take packets that are held back for
ones that have not left, and send no more. What cannot be had is refused by name before anything is built (`lacking`).

`rules` and `lacking` are pure; `shape` changes the kernel; `hold_back` is the process.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NoReturn

from netkit.fabric.build import Fabric
from netkit.fabric.spec import FabricSpec, InterfaceSpec, LinkProperties, device_name, port_name
from netkit.kernel import packet_queue, qdisc, rtnl
from netkit.kernel.iptables import IPTables
from netkit.kernel.netns import Namespace
from netkit.kernel.rtnl import Rtnl

NETEM: Final = "qdisc netem"
_TBF: Final = "qdisc tbf"
_QUEUE: Final = "iptables target NFQUEUE"
_STATISTIC: Final = "iptables match statistic"
_PHYSDEV: Final = "iptables match physdev"
FEATURES: Final = (NETEM, _TBF, _QUEUE, _STATISTIC, _PHYSDEV)
"""What is tried for, by the names of `kernel.probe`."""

IN, OUT = "NETKIT-LINKS-IN", "NETKIT-LINKS-OUT"
_QUEUES: Final = 1 << 15
_HOOKS: Final = ((IN, "PREROUTING", "--physdev-in"), (OUT, "POSTROUTING", "--physdev-out"))


def lacking(spec: FabricSpec, present: Collection[str]) -> list[str]:
    """Which properties of which cables cannot be had with the features `present`; empty when all can."""
    if NETEM in present:
        return []
    found = []
    for machine, number, interface in spec.cables():
        for name, value, needed in (
            ("rate", interface.link.rate, {_TBF}),
            ("delay", interface.link.delay, {_QUEUE, _PHYSDEV}),
            ("jitter", interface.link.jitter, {_QUEUE, _PHYSDEV}),
            ("loss", interface.link.loss, {_STATISTIC, _PHYSDEV}),
        ):
            if value and not needed <= set(present):
                means = " and ".join(sorted(needed))
                found.append(f"{machine.name} {device_name(number)} {name} (needs {NETEM}, or {means})")
    return found


def shaped(spec: FabricSpec) -> bool:
    """Whether there is a cable that does something to packets."""
    return any(interface.link.shaped for _, _, interface in spec.cables())


def held(spec: FabricSpec) -> bool:
    """Whether packets have to be held back, should there be no netem."""
    return any(_is_held(interface) for _, _, interface in spec.cables())


def rules(spec: FabricSpec) -> str:
    """Input of `iptables-restore --noflush`: both chains, filled. The jumps into them come apart."""
    lines = ["*mangle", *(f":{chain} - [0:0]" for chain, _, _ in _HOOKS)]
    for chain, _, match in _HOOKS:
        for machine, number, interface in spec.cables():
            link, name = interface.link, port_name(machine.name, number)
            port = f"-m physdev {match} {name}"
            cable = f"{machine.name} {device_name(number)}"
            if link.loss:
                dice = f"-m statistic --mode random --probability {link.loss:.10f}"
                comment = _comment(f"{cable} loses {link.loss * 100:.10g}%")
                lines.append(f"-A {chain} {port} {dice} {comment} -j DROP")
            if _is_held(interface):
                queue = _queue_number(name, incoming=chain == IN)
                comment = _comment(f"{cable} holds back {link.delay * 1000:.10g} ms")
                lines.append(f"-A {chain} {port} {comment} -j NFQUEUE --queue-num {queue} --queue-bypass")
    return "\n".join([*lines, "COMMIT"]) + "\n"


async def shape(fabric: Fabric, lock_file: Path, *, netem: bool) -> None:
    """Have all cables do what they should. `lock_file` is that of the switch's packet filter. Raises KernelError."""
    spec, bridges = fabric.spec, set()
    for machine, number, interface in spec.cables():
        inside = fabric.machines[machine.name].ns
        for end, link in ((inside, device_name(number)), (fabric.switch, port_name(machine.name, number))):
            await asyncio.to_thread(_discipline, end, link, interface.link, netem)
        if _is_held(interface) or interface.link.loss:
            bridges.add(spec.bridge_of(interface))
    if netem or not bridges:
        return
    iptables = IPTables(fabric.switch, lock_file=lock_file)
    await iptables.restore(rules(spec))
    for chain, hook, _ in _HOOKS:
        await iptables.ensure_rule(
            "mangle", hook, ("-m", "comment", "--comment", "emulated links", "-j", chain)
        )
    with Rtnl(fabric.switch) as links:
        links.apply(*(rtnl.bridge_calls_iptables(bridge) for bridge in sorted(bridges)))


def hold_back(switch: Namespace, spec: FabricSpec) -> NoReturn:
    """Hold packets back for ever. Raises KernelError."""
    packet_queue.serve(list(_queues(switch, spec)))


def _queues(switch: Namespace, spec: FabricSpec) -> Iterator[packet_queue.DelayQueue]:
    for machine, number, interface in spec.cables():
        if _is_held(interface):
            for incoming in (False, True):
                queue = _queue_number(port_name(machine.name, number), incoming=incoming)
                yield packet_queue.DelayQueue(switch, queue, interface.link.delay, interface.link.jitter)


def _discipline(ns: Namespace, device: str, link: LinkProperties, netem: bool) -> None:
    if netem and link.shaped:
        qdisc.netem(ns, device, rate=link.rate, delay=link.delay, jitter=link.jitter, loss=link.loss)
    elif link.rate:
        qdisc.tbf(ns, device, link.rate)


def _is_held(interface: InterfaceSpec) -> bool:
    return bool(interface.link.delay or interface.link.jitter)


def _queue_number(port: str, *, incoming: bool) -> int:
    """Fixed by the port's name: machines come and go while rules and process stand."""
    return 2 * (zlib.crc32(port.encode()) % _QUEUES) + incoming


def _comment(text: str) -> str:
    return f'-m comment --comment "emulated link: {text}"'
