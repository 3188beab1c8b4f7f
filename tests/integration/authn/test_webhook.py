"""Tokens that another server knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from support.apiserver import Served, cluster
from support.authentication import Rights, reviewed, whoami
from support.issuer import Webhook, kubeconfig, tls_server

from controlplane.apiserver.authn.settings import AuthenticationSettings, WebhookTokenSettings

API = "https://kubernetes.default.svc.cluster.local"
JANE = {
    "authenticated": True,
    "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["view"]}},
}


def known(token: str, audiences: list[str]) -> Any:
    match token:
        case "jane":
            return JANE
        case "vault":
            return JANE | {"audiences": ["vault"]}
        case "broken":
            return {"authenticated": False, "error": "out of order"}
    return {"authenticated": False}


@asynccontextmanager
async def hooked(directory: Path, hook: Webhook, seconds: float = 60.0) -> AsyncIterator[Served]:
    async with tls_server(directory, hook.answer) as (url, ca):
        file = kubeconfig(directory / "hook.yaml", f"{url}/authenticate", ca)
        settings = AuthenticationSettings(
            webhook=WebhookTokenSettings(config_file=file, cache_seconds=seconds)
        )
        async with cluster(directory, authentication=settings, authorizer=Rights()) as api:
            yield api


async def test_the_webhook_says_who_it_is(tmp_path: Path) -> None:
    hook = Webhook(known)
    async with hooked(tmp_path, hook) as api:
        code, user = await whoami(api, "jane")
        assert (code, user) == (201, {**JANE["user"], "groups": ["dev", "system:authenticated"]})  # type: ignore[dict-item]
        path, review = hook.asked[0]
        assert path == "/authenticate"
        assert review["spec"] == {"token": "jane", "audiences": [API]}
        assert (await whoami(api, "nobody"))[0] == 401
        # What it said is remembered, for and against.
        for _ in range(3):
            assert (await whoami(api, "jane"))[0] == 201
            assert (await whoami(api, "nobody"))[0] == 401
        assert len(hook.asked) == 2
        assert "out of order" in (await reviewed(api, "broken"))["error"]


async def test_answers_are_forgotten_in_time(tmp_path: Path) -> None:
    hook = Webhook(known)
    async with hooked(tmp_path, hook, 0.0) as api:
        for _ in range(2):
            assert (await whoami(api, "jane"))[0] == 201
        assert len(hook.asked) == 2


async def test_audiences(tmp_path: Path) -> None:
    async with hooked(tmp_path, Webhook(known)) as api:
        assert (await whoami(api, "vault"))[0] == 401
        status = await reviewed(api, "vault", ["vault", "more"])
        assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
        # A server that knows nothing of audiences does not speak for others than the API server.
        assert "authenticated" not in await reviewed(api, "jane", ["vault"])


async def test_a_webhook_that_stumbles_is_asked_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("controlplane.apiserver.authn.webhook._TRIES", 3)
    from controlplane.apiserver.authn import webhook

    monkeypatch.setattr(webhook.WebhookTokenAuthenticator.__init__, "__defaults__", ((), 0.01))
    hook = Webhook(known, faults=[500, 429])
    async with hooked(tmp_path, hook) as api:
        assert (await whoami(api, "jane"))[0] == 201
        assert len(hook.asked) == 3
        hook.faults = [500] * 3
        assert "the webhook answered 500" in (await reviewed(api, "other"))["error"]
        hook.faults = [403]
        assert "the webhook answered 403" in (await reviewed(api, "third"))["error"]
        assert hook.faults == []


NO_ANSWERS = [
    b"not json",
    b"[]",
    orjson.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "Pod"}),
    orjson.dumps({"apiVersion": "authentication.k8s.io/v1beta1", "kind": "TokenReview", "status": JANE}),
    *(
        orjson.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
        for status in (
            None,
            {"authenticated": "true", "user": JANE["user"]},
            {"authenticated": True},
            {"authenticated": True, "user": {"username": 7}},
            {"authenticated": True, "user": {"username": "x", "groups": "system:masters"}},
            {"authenticated": True, "user": {"username": "x", "extra": {"a": "b"}}},
        )
    ),
]


async def test_answers_that_are_none_let_nobody_in(tmp_path: Path) -> None:
    hook = Webhook(known)
    async with hooked(tmp_path, hook, 0.0) as api:
        for body in NO_ANSWERS:
            hook.body = body
            assert (await whoami(api, "jane"))[0] == 401, body
        hook.body = None
        assert (await whoami(api, "jane"))[0] == 201


async def test_one_question_for_all_who_ask_at_once(tmp_path: Path) -> None:
    hook = Webhook(known)
    async with hooked(tmp_path, hook) as api:
        answers = await asyncio.gather(*(whoami(api, "jane") for _ in range(5)))
        assert [code for code, _ in answers] == [201] * 5
        assert len(hook.asked) == 1
