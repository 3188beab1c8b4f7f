"""An explanation as people read it: the verdict first, then the rules in order, the endpoints, and the reasons.

Pure; colours are laid on by who prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from netkit.proxy.addresses import host_port, parse_address
from netkit.proxy.explain.endpoints import EndpointFate
from netkit.proxy.explain.explanation import Explanation, Outcome
from netkit.proxy.explain.reasons import Reason
from netkit.proxy.explain.steps import Step
from netkit.proxy.explain.tracked import TrackedFlow

Paint = Callable[[str, str], str]
"""Lays an ink (`good`, `bad`, `dim`, `bold`) on a text."""

_SHOWN_ENDPOINTS = 8
_SHOWN_CHOICES = 4


def plain(ink: str, text: str) -> str:
    """No colours."""
    return text


def lines(found: Explanation, paint: Paint = plain, *, everything: bool = False) -> Iterator[str]:
    """The explanation line by line. `everything` shows also rules the packet does not meet, and long lists whole."""
    yield paint("good" if found.delivered else "bad", found.summary)
    yield from _question(found)
    if found.steps:
        yield ""
        yield f"Rules on the way through {found.node} ({found.mode}):"
        yield from _steps(found.steps, paint, everything)
    if found.endpoints:
        used = sum(item.eligible for item in found.endpoints)
        yield ""
        yield f"Endpoints ({used} of {len(found.endpoints)} eligible):"
        yield from _endpoints(found.endpoints, paint, everything)
    if found.tracked:
        stale = sum(flow.stale for flow in found.tracked)
        yield ""
        yield f"UDP flows that are remembered and meet no rule again ({len(found.tracked)}, {stale} of them stale):"
        yield from _tracked(found.tracked, paint, everything)
    if found.outcome is not Outcome.IGNORED:
        yield ""
        yield "Why:"
        yield from _reasons(found.reasons)
    if found.other_rules:
        count = sum(len(section.entries) for section in found.other_rules)
        yield ""
        if everything:
            yield "Rules of this port for other packets:"
            for section in found.other_rules:
                yield f"  {section.name}{f' ({section.note})' if section.note else ''}"
                yield from (paint("dim", f"      {entry}") for entry in section.entries)
        else:
            yield paint("dim", f"{count} more rules serve other packets to this port: --all shows them")


def _question(found: Explanation) -> Iterator[str]:
    address = (
        f"{host_port(parse_address(found.address), found.number)}/{found.protocol}"
        if found.address
        else "(none)"
    )
    yield f"  called  {found.destination} {address}"
    match found.origin:
        case "pod":
            who = (
                f"pod {found.source_name} ({found.source})"
                if found.source_name
                else f"a pod ({found.source})"
            )
        case "node":
            who = f"{found.source_name} itself ({found.source})"
        case _:
            who = f"{found.source_name or 'somebody'} outside the cluster ({found.source})"
    yield f"  by      {who}"
    yield f"  on      {found.node}, mode {found.mode}, {found.family}"


def _steps(steps: Sequence[Step], paint: Paint, everything: bool) -> Iterator[str]:
    """Numbered; of many endpoints only the rules of the first few."""
    first = list(dict.fromkeys(step.endpoint for step in steps if step.endpoint))
    shown = {"", *(first if everything else first[:_SHOWN_CHOICES])}
    width = max(len(step.hook) for step in steps)
    hook, skipped, number = "", 0, 0
    for step in steps:
        if step.endpoint not in shown:
            skipped += 1
            continue
        if skipped:
            yield _skipped(skipped, paint)
            skipped = 0
        number += 1
        where, hook = step.hook if step.hook != hook else "", step.hook
        yield f"{number:>3}  {where:<{width}}  {step.section}: {step.meaning}"
        if step.standing and step.entry:
            yield paint("dim", f"     {'':<{width}}      {step.entry}")
        elif not step.standing:
            yield paint(
                "bad", f"     {'':<{width}}      missing from the kernel: {step.entry or step.section}"
            )
    if skipped:
        yield _skipped(skipped, paint)


def _skipped(count: int, paint: Paint) -> str:
    return paint(
        "dim", f"     ... {count} more rules of the same kind, for the other endpoints: --all shows them"
    )


def _endpoints(endpoints: Sequence[EndpointFate], paint: Paint, everything: bool) -> Iterator[str]:
    limit = len(endpoints) if everything else _SHOWN_ENDPOINTS
    rows = [
        (item.target, item.node or "-", item.pod or "-", _standing(item), item.eligible)
        for item in endpoints[:limit]
    ]
    widths = [max(len(str(row[column])) for row in rows) for column in range(3)]
    for target, node, pod, standing, used in rows:
        line = f"  {target:<{widths[0]}}  {node:<{widths[1]}}  {pod:<{widths[2]}}  {standing}"
        yield line if used else paint("dim", line)
    if len(endpoints) > limit:
        yield paint("dim", f"  ... {len(endpoints) - limit} more: --all shows them")


def _tracked(flows: Sequence[TrackedFlow], paint: Paint, everything: bool) -> Iterator[str]:
    limit = len(flows) if everything else _SHOWN_ENDPOINTS
    for flow in flows[:limit]:
        line = f"  {flow.client} called {flow.called}, {flow.answering} answers: {flow.because}"
        yield paint("bad", f"{line}; the proxy removes it") if flow.stale else line
    if len(flows) > limit:
        yield paint("dim", f"  ... {len(flows) - limit} more: --all shows them")


def _standing(item: EndpointFate) -> str:
    if item.eligible:
        return item.share if item.because == "ready" else f"{item.share}, {item.because}"
    return f"no: {item.standing}; {item.because}"


def _reasons(reasons: Sequence[Reason]) -> Iterator[str]:
    width = max(len(reason.about) for reason in reasons)
    answers = max(len(reason.answer) for reason in reasons)
    for reason in reasons:
        yield f"  {reason.about:<{width}}  {reason.answer:<{answers}}  {reason.because}"
