"""What was seen against what a row expects. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from netkit.proxy.addresses import parse_address
from rows.format import Expectation, Outcome, Place, Row, Sticky
from rows.traffic import Seen

_MISSED = 1e-9
"""How probable it may be that a row does not see an endpoint which takes its fair share."""
REFUSALS = 6
"""Attempts of a row that expects no endpoint."""
_STICKY_TRIES = 20
_LUCK = 0.25
"""How many of a node's own connections may change their port without being masqueraded, because it was in use, or
keep it although they are.
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the row holds; and what was seen, in the words of the format.

    `incomplete`: nothing was seen that must not be, but something was not seen that must. A datagram may get lost, and
    who takes turns with others may meet the same endpoint each time; another look tells.
    """

    holds: bool
    seen: str
    why: str = ""
    incomplete: bool = False


def enough(expected: Expectation, seen: Sequence[Seen], *, rotates: bool) -> bool:
    """Whether more attempts would show nothing new."""
    return len(seen) >= _tries(expected, seen, rotates)


def _tries(expected: Expectation, seen: Sequence[Seen], rotates: bool) -> int:
    """How many attempts it takes to see every endpoint, and one more than is expected if there is one.

    Of n equal shares one is missed by t attempts with probability (1 - 1/n)^t.
    """
    if expected.outcome is not Outcome.ENDPOINTS:
        return REFUSALS
    if any(item.outcome is not Outcome.ENDPOINTS for item in seen):
        return 0
    if expected.sticky is not Sticky.NO:
        return _STICKY_TRIES
    shares = max(len(expected.endpoints), len({item.endpoint for item in seen})) + 1
    if rotates:
        return 2 * shares + 8
    return math.ceil(math.log(_MISSED / shares) / math.log(1 - 1 / shares))


def judge(row: Row, expected: Expectation, seen: Sequence[Seen]) -> Judgement:
    """Compare."""
    text = _summary(row, seen)
    if not seen:
        return Judgement(False, text, "nothing was tried")
    if expected.outcome is not Outcome.ENDPOINTS:
        wrong = [item for item in seen if not _matches(item, expected.outcome)]
        return Judgement(not wrong, text, incomplete=_silent(wrong))
    others = [item for item in seen if item.outcome is not Outcome.ENDPOINTS]
    if others:
        why = f"{len(others)} of {len(seen)} connections reached no endpoint"
        return Judgement(False, text, why, incomplete=_silent(others))
    if expected.sticky is not Sticky.NO:
        return _judge_sticky(row, expected, seen, text)
    found = {item.endpoint for item in seen}
    if found != expected.endpoints:
        return Judgement(
            False, text, _difference(found, expected.endpoints), incomplete=found < expected.endpoints
        )
    return _judge_source(row, expected, seen, text)


def _silent(wrong: Sequence[Seen]) -> bool:
    """Whether all that is wrong is that no answer came."""
    return bool(wrong) and all(item.outcome is Outcome.DROP for item in wrong)


def _matches(item: Seen, outcome: Outcome) -> bool:
    if item.outcome is None:
        return not item.problem and outcome in (Outcome.REJECT, Outcome.NONE)
    return item.outcome is outcome


def _judge_sticky(row: Row, expected: Expectation, seen: Sequence[Seen], text: str) -> Judgement:
    groups = Counter(
        (item.target if expected.sticky is Sticky.EACH else None, item.endpoint) for item in seen
    )
    if not {endpoint for _, endpoint in groups} <= expected.endpoints:
        return Judgement(False, text, _difference({endpoint for _, endpoint in groups}, expected.endpoints))
    if len({target for target, _ in groups}) != len(groups):
        return Judgement(False, text, "connections did not keep to one endpoint")
    return _judge_source(row, expected, seen, text)


def _difference(found: set[str], wanted: frozenset[str]) -> str:
    parts = []
    if missing := sorted(wanted - found):
        parts.append(f"never reached: {', '.join(missing)}")
    if extra := sorted(found - wanted):
        parts.append(f"reached, but must not be: {', '.join(extra)}")
    return "; ".join(parts)


def rewritten(row: Row, item: Seen) -> bool:
    """Whether the endpoint saw another client than the one that called.

    A node's own connection may keep its address when it is masqueraded; the port then tells.
    """
    if parse_address(item.peer[0]) != parse_address(item.source[0]):
        return True
    return row.origin.place is Place.NODE and item.peer[1] != item.source[1]


def _judge_source(row: Row, expected: Expectation, seen: Sequence[Seen], text: str) -> Judgement:
    if expected.masqueraded is None:
        return Judgement(True, text)
    for endpoint in sorted({item.endpoint for item in seen}):
        mine = [item for item in seen if item.endpoint == endpoint]
        wanted = expected.masqueraded or _hairpin(mine[0])
        wrong = [item for item in mine if rewritten(row, item) != wanted]
        if len(wrong) > (_LUCK * len(mine) if row.origin.place is Place.NODE else 0):
            why = (
                f"{len(wrong)} of {len(mine)} connections to {endpoint} {'kept' if wanted else 'lost'} their source:"
                f" it saw {wrong[0].peer[0]} of {wrong[0].source[0]}"
            )
            return Judgement(False, text, why)
    return Judgement(True, text)


def _hairpin(item: Seen) -> bool:
    """Whether the endpoint is the caller; its source is rewritten in any case."""
    return item.endpoint.rpartition(":")[0].strip("[]") == item.source[0]


def _summary(row: Row, seen: Sequence[Seen]) -> str:
    counts = Counter(str(item) for item in seen)
    if not counts:
        return "nothing"
    reached = [item for item in seen if item.outcome is Outcome.ENDPOINTS]
    text = ", ".join(f"{what} ({count}x)" for what, count in sorted(counts.items()))
    if reached:
        changed = sum(rewritten(row, item) for item in reached)
        text += "; masqueraded" if changed == len(reached) else f"; masqueraded {changed}x" if changed else ""
    return text
