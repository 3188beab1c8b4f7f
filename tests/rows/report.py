"""Results as people read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rows.format import Expectation, Outcome, Sticky
from rows.runner import Result


def line(result: Result) -> str:
    """One line: how a row went."""
    judgement = result.judgement
    word = "skip" if judgement is None else "ok" if judgement.holds else "FAIL"
    note = f" ({result.expected.skip})" if judgement is None else ""
    return f"{word:4} {result.variety.name:16} {result.row.title}{note}"


def failure(result: Result) -> Iterator[str]:
    """What was called, expected and seen, and the rules that served it."""
    row, judgement = result.row, result.judgement
    assert judgement is not None
    yield f"call      {row.protocol} from {row.written['from']} to {', '.join(map(str, row.targets))}"
    yield f"expected  {expected_text(result.expected)}"
    yield f"seen      {judgement.seen}"
    if judgement.why:
        yield f"so        {judgement.why}"
    if row.covers:
        yield f"covers    {row.covers}"
    for rule in result.rules.splitlines():
        yield f"| {rule}"


def expected_text(expected: Expectation) -> str:
    """An expectation in the words in which results are told."""
    if expected.outcome is not Outcome.ENDPOINTS:
        return expected.outcome
    text = ", ".join(sorted(expected.endpoints))
    if expected.masqueraded is not None:
        text += "; masqueraded" if expected.masqueraded else "; not masqueraded"
    match expected.sticky:
        case Sticky.ALL:
            text += "; all connections to one of them"
        case Sticky.EACH:
            text += "; all connections to one address to one of them"
    return text
