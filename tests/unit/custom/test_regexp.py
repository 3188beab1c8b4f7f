"""Patterns in Go's syntax."""

from __future__ import annotations

import pytest

from controlplane.resources.custom.regexp import compile_pattern
from controlplane.resources.custom.rules import uses_old_self, without_texts


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        (r"^a$", "a", "a\n"),
        (r"^a+$", "aa", "a\n"),
        (r"^[a-z$&]+$", "a$&", "a%"),
        (r"^[]a]+$", "]a", "b"),
        (r"^[^]a]+$", "b", "]"),
        (r"^[[:alpha:]_]+$", "ab_", "a1"),
        (r"^[[]$", "[", "]"),
        (r"^\Qa.b\E$", "a.b", "axb"),
        (r"^(?P<x>a)(?<y>b)$", "ab", "a"),
        (r"(?i)^abc$", "ABC", "abd"),
        (r"^(?:a|b)\z", "b", "c"),
        (r"(?m)^a$", "b\na\nc", "ab"),
        (r"^\x{61}$", "a", "b"),
        (r"^\w$", "a", "ä"),
        (r"^\p{L}$", "ä", "1"),
    ],
)
def test_what_fits(pattern: str, fits: str, not_fits: str) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.search(fits)
    assert not compiled.search(not_fits)


@pytest.mark.parametrize(
    "pattern", ["(", "a**", r"(?=a)", r"(?<!a)b", r"(a)\1", "[z-a]", "\\", "[[:what:]]", "a{2,1}"]
)
def test_what_go_does_not_take(pattern: str) -> None:
    with pytest.raises(ValueError, match="error parsing regexp"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("self.a == oldSelf.a", True),
        ("self.a == 'oldSelf'", False),
        ('self.a == "\\"oldSelf"', False),
        ('self.a.matches(r"""^"oldSelf"$""")', False),
        ("self.a == r'\\' && oldSelf.a", True),
        ("self.oldSelfish", False),
    ],
)
def test_uses_of_the_old_value(rule: str, expected: bool) -> None:
    assert uses_old_self(rule) is expected, without_texts(rule)
