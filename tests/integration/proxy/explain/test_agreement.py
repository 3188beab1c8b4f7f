"""The way through the rules agrees with the model, in every mode, whoever calls what under whichever policy."""

from __future__ import annotations

import pytest
from support.explained_agreement import ENDPOINTS, MODES, SETTINGS, rules_and_model_agree

from netkit.proxy.explain.target import To


@pytest.mark.parametrize(
    ("endpoints", "settings"),
    [(endpoints, "") for endpoints in ENDPOINTS] + [("both", settings) for settings in SETTINGS if settings],
)
@pytest.mark.parametrize("to", To)
@pytest.mark.parametrize("mode", MODES)
async def test_rules_and_model_agree(mode: str, to: To, endpoints: str, settings: str) -> None:
    await rules_and_model_agree(mode, to, endpoints, settings)
