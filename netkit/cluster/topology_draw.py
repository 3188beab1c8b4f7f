"""Draws a topology for people: as text, as a Mermaid flow chart, as SVG. Pure."""

from __future__ import annotations

from html import escape

from netkit.cluster.topology import Interface, Machine, Role, Segment, Topology
from netkit.cluster.topology_document import properties

_BOX, _GAP, _ROW, _TOP, _LEFT = 132, 18, 150, 46, 24
_FILL = {
    Role.ROUTER: "#fde9c8",
    Role.HOST: "#eeeeee",
    Role.CONTROL_PLANE: "#dbe7fb",
    Role.CLIENT: "#eeeeee",
    Role.NODE: "#dcf3dc",
}
_FONT = 'font-family="monospace" font-size="11"'


def text(topology: Topology) -> str:
    """A segment after the other, with what is plugged into it."""
    lines = []
    for segment in topology.segments:
        lines.append(f"══ {_segment(segment)} {'═' * max(3, 60 - len(_segment(segment)))}")
        plugged = [
            (m, each) for m in topology.machines for each in m.interfaces if each.segment == segment.name
        ]
        width = max((len(machine.name) for machine, _ in plugged), default=0)
        where = max((len(_address(each)) for _, each in plugged), default=0)
        for number, (machine, each) in enumerate(plugged):
            mark = "└─" if number == len(plugged) - 1 else "├─"
            line = f"   {mark} {machine.name:<{width}}  {_address(each):<{where}}  {_about(machine, segment.name)}"
            lines.append((line + _link(each)).rstrip())
        lines.append("")
    return "\n".join(lines)


def mermaid(topology: Topology) -> str:
    """A flow chart: segments are rounded, machines are boxes."""
    lines = ["flowchart TB"]
    lines += [f'  s_{_id(s.name)}(["{_segment(s)}"])' for s in topology.segments]
    zones = {zone.name: [m for m in topology.machines if m.zone == zone.name] for zone in topology.zones}
    for zone, members in zones.items():
        lines.append(f'  subgraph z_{_id(zone)}["zone {zone}"]')
        lines += [f"  {_node(machine)}" for machine in members]
        lines.append("  end")
    lines += [_node(machine) for machine in topology.machines if not machine.zone]
    for machine in topology.machines:
        for each in machine.interfaces:
            label = f"{_address(each)}{_link(each)}".strip()
            edge = f'-- "{label}" ---' if label else "---"
            lines.append(f"  m_{_id(machine.name)} {edge} s_{_id(each.segment)}")
    for role, fill in _FILL.items():
        names = ",".join(f"m_{_id(machine.name)}" for machine in topology.of(role))
        if names:
            style = role.replace(" ", "-")
            lines += [f"  classDef {style} fill:{fill}", f"  class {names} {style}"]
    return "\n".join(lines) + "\n"


def svg(topology: Topology) -> str:
    """Segments are lines across, machines of one segment hang on them; machines of several stand to the right."""
    joining = [machine for machine in topology.machines if len(machine.interfaces) > 1]
    alone = {
        segment.name: [machine for machine in topology.on(segment.name) if machine not in joining]
        for segment in topology.segments
    }
    columns = max(len(machines) for machines in alone.values())
    right = _LEFT + columns * (_BOX + _GAP) + _GAP
    width = right + max(1, len(joining)) * (_BOX + _GAP) + _LEFT
    rows = {segment.name: _TOP + number * _ROW for number, segment in enumerate(topology.segments)}
    height = _TOP + len(rows) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(topology.name or 'topology')}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for segment in topology.segments:
        y = rows[segment.name]
        parts += [_line(_LEFT, y, width - _LEFT, y, 4), _text(_LEFT, y - 10, _segment(segment), bold=True)]
        for number, machine in enumerate(alone[segment.name]):
            x = _LEFT + number * (_BOX + _GAP)
            parts += [_line(x + _BOX // 2, y, x + _BOX // 2, y + 34), _box(x, y + 34, machine)]
            parts.append(_text(x + _BOX // 2 + 4, y + 20, _cable(machine.interfaces[0])))
    for number, machine in enumerate(joining):
        parts += _joining(
            right + number * (_BOX + _GAP), [rows[e.segment] for e in machine.interfaces], machine
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _joining(x: int, ys: list[int], machine: Machine) -> list[str]:
    """A machine that joins the segments drawn at the heights `ys`, one for each of its interfaces."""
    middle, center = min(ys) + 60, x + _BOX // 2
    parts = [_line(center, min(ys), center, max(*ys, middle))]
    for y, interface in zip(ys, machine.interfaces, strict=True):
        parts.append(f'<circle cx="{center}" cy="{y}" r="5" fill="#335"/>')
        parts.append(_text(center + 8, y + 16, _cable(interface)))
    return [*parts, _box(x, middle - 16, machine)]


def _line(x1: int, y1: int, x2: int, y2: int, thick: int = 2) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#335" stroke-width="{thick}"/>'


def _text(x: int, y: int, shown: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" {_FONT}{weight}>{escape(shown)}</text>'


def _cable(interface: Interface) -> str:
    return f"{_address(interface)}{_link(interface)}"


def _box(x: int, y: int, machine: Machine) -> str:
    what = f"{machine.role}, {machine.zone}" if machine.zone else str(machine.role)
    rectangle = f'<rect x="{x}" y="{y}" width="{_BOX}" height="44" rx="6" fill="{_FILL[machine.role]}" stroke="#335"/>'
    return rectangle + _text(x + 8, y + 18, machine.name, bold=True) + _text(x + 8, y + 35, what)


def _segment(segment: Segment) -> str:
    return "  ".join(filter(None, [segment.name, str(segment.subnet or ""), f"MTU {segment.mtu}"]))


def _about(machine: Machine, here: str) -> str:
    words = [str(machine.role)]
    if machine.zone:
        words.append(f"zone {machine.zone}")
    if machine.asn:
        words.append(f"AS {machine.asn}")
    others = [each.segment for each in machine.interfaces if each.segment != here]
    if others:
        words.append(f"also on {', '.join(others)}")
    return ", ".join(words)


def _link(interface: Interface) -> str:
    found = properties(interface.link)
    return f"  [{', '.join(f'{key} {value}' for key, value in found.items())}]" if found else ""


def _node(machine: Machine) -> str:
    what = "" if machine.name == machine.role else f"<br/>{machine.role}"
    return f'  m_{_id(machine.name)}["{machine.name}{what}"]'


def _address(interface: Interface) -> str:
    return str(interface.address or "")


def _id(name: str) -> str:
    return name.replace("-", "_")
