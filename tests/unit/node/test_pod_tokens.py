"""When a pod's tokens are asked for again, and what is done while that fails."""

from __future__ import annotations

from typing import Any

import pytest

from netkit.node.pod_tokens import PodTokens
from netkit.node.podspec.references import ConfigError, TokenWish
from netkit.node.podspec.volumes import MountError

POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u"},
    "spec": {
        "volumes": [
            {"name": "own", "emptyDir": {}},
            {
                "name": "t",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "a", "expirationSeconds": 3607}},
                        {"serviceAccountToken": {"path": "b", "audience": "vault", "expirationSeconds": 600}},
                        {"serviceAccountToken": {"path": "c", "expirationSeconds": 3607}},
                    ]
                },
            },
        ]
    },
}
OWN, VAULT = TokenWish("", 3607), TokenWish("vault", 600)


class Issuer:
    """Gives numbered tokens; `now` is the time, `fault` what it says instead."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.given = 0
        self.fault = ""

    async def token(self, pod: Any, audience: str, seconds: int) -> tuple[str, float]:
        if self.fault:
            raise ConfigError(self.fault)
        self.given += 1
        return f"{audience}{self.given}", self.now + seconds


async def test_tokens_are_renewed_after_four_fifths_of_their_life() -> None:
    issuer = Issuer()
    tokens = PodTokens(issuer, lambda: issuer.now)  # type: ignore[arg-type]
    assert await tokens.fetch(POD) == {OWN: "1", VAULT: "vault2"}
    issuer.now += 479
    assert await tokens.fetch(POD) == {OWN: "1", VAULT: "vault2"}
    issuer.now += 2
    assert await tokens.fetch(POD) == {OWN: "1", VAULT: "vault3"}
    issuer.now += 2900
    assert (await tokens.fetch(POD))[OWN] == "4"


async def test_a_token_is_used_to_its_end_when_no_other_is_to_be_had() -> None:
    issuer = Issuer()
    tokens = PodTokens(issuer, lambda: issuer.now)  # type: ignore[arg-type]
    issuer.fault = "failed to fetch token: no"
    with pytest.raises(MountError, match='for volume "t" : failed to fetch token: no'):
        await tokens.fetch(POD)
    issuer.fault = ""
    await tokens.fetch(POD)
    issuer.fault = "failed to fetch token: no"
    issuer.now += 500
    assert (await tokens.fetch(POD))[VAULT] == "vault2"
    issuer.now += 100
    with pytest.raises(MountError):
        await tokens.fetch(POD)
