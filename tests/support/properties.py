"""How many examples a property test with a number of its own looks at, under each profile of tests/conftest.py."""

from __future__ import annotations

from hypothesis import settings


def examples(usual: int) -> int:
    """So many under the profile `quick`; a fifth `briefly`, 25 times as many when `thorough`.

    Never fewer than three: the first that Hypothesis makes is the simplest.
    """
    return max(3, usual * settings.default.max_examples // settings.get_profile("quick").max_examples)
