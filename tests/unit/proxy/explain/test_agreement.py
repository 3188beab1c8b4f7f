"""The way through the rules agrees with the model; with all kinds of endpoints and settings in the lane integration."""

from __future__ import annotations

import pytest
from support.explained_agreement import MODES, rules_and_model_agree

from netkit.proxy.explain.target import To


@pytest.mark.parametrize("to", To)
@pytest.mark.parametrize("mode", MODES)
async def test_rules_and_model_agree(mode: str, to: To) -> None:
    await rules_and_model_agree(mode, to, "both", "")
