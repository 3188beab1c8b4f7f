"""The Webhook authorizer against a server of the test's own that answers, denies, lies and goes away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.policy import user

from controlplane.apiserver.authz import Attributes, Chain, Verdict
from controlplane.apiserver.authz.selectors import field_requirements
from controlplane.apiserver.authz.webhook import WebhookAuthorizer, WebhookSettings
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo

PODS = RequestInfo("list", "", True, "", "v1", "ns", "pods")


@dataclass(slots=True)
class Hook:
    settings: WebhookSettings
    server: TestServer
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    answer: Any = None
    status: int = 200


@pytest.fixture
async def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hook]:
    monkeypatch.setattr("controlplane.apiserver.authz.webhook._PAUSE_SECONDS", 0.001)

    async def respond(request: web.Request) -> web.Response:
        made.seen.append(await request.json())
        made.headers.append(request.headers)
        body = made.answer if isinstance(made.answer, bytes) else json.dumps(made.answer).encode()
        return web.Response(status=made.status, body=body)

    app = web.Application()
    app.router.add_post("/authorize", respond)
    server = TestServer(app)
    await server.start_server()
    path = tmp_path / "hook.kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": str(server.make_url("/authorize"))}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
            }
        )
    )
    made = Hook(WebhookSettings(path, timeout=5), server)
    try:
        yield made
    finally:
        await server.close()


def says(**status: Any) -> dict[str, Any]:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status}


async def test_the_question_and_the_answers(hook: Hook) -> None:
    webhook = WebhookAuthorizer(hook.settings)
    bob = UserInfo("bob", "7", ("team",), {"k": ("v",)})
    asked = Attributes(bob, PODS, field_requirements("spec.nodeName=n1"))
    hook.answer = says(allowed=True, reason="why not")
    decision = await webhook.authorize(asked)
    assert (decision.verdict, decision.reason) == (Verdict.ALLOW, "why not")
    assert hook.seen[0]["apiVersion"] == "authorization.k8s.io/v1"
    assert hook.seen[0]["spec"] == {
        "user": "bob",
        "uid": "7",
        "groups": ["team"],
        "extra": {"k": ["v"]},
        "resourceAttributes": {
            "namespace": "ns",
            "verb": "list",
            "version": "v1",
            "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
        },
    }
    assert hook.headers[0]["Authorization"] == "Bearer secret"
    hook.answer = says(allowed=False, denied=True, reason="no")
    path = Attributes(bob, RequestInfo("get", "/metrics"))
    assert (await webhook.authorize(path)).verdict is Verdict.DENY
    assert hook.seen[1]["spec"]["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
    hook.answer = says(allowed=False)
    eve = Attributes(user("eve"), PODS)
    assert (await webhook.authorize(eve)).verdict is Verdict.NO_OPINION
    await webhook.close()


async def test_answers_are_remembered_per_question(hook: Hook) -> None:
    webhook = WebhookAuthorizer(hook.settings)
    hook.answer = says(allowed=True)
    for _ in range(3):
        assert (await webhook.authorize(Attributes(user("bob"), PODS))).allowed
    assert len(hook.seen) == 1
    hook.answer = says(allowed=False)
    assert not (await webhook.authorize(Attributes(user("eve"), PODS))).allowed
    assert len(hook.seen) == 2
    await webhook.close()
    forgetful = WebhookAuthorizer(WebhookSettings(hook.settings.kubeconfig, 0, 0))
    for _ in range(2):
        await forgetful.authorize(Attributes(user("bob"), PODS))
    assert len(hook.seen) == 4
    await forgetful.close()


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, b"", "zero-length"),
        (200, b"[]", "no SubjectAccessReview"),
        (200, {"kind": "TokenReview", "status": {"allowed": True}}, "no SubjectAccessReview"),
        (200, {"kind": "SubjectAccessReview"}, "no status"),
        (200, says(allowed="true"), "wrong type"),
        (200, says(allowed=1), "wrong type"),
        (200, says(allowed=True, denied=True), "both allow and deny"),
        (200, b" " * 2_000_000, "too long"),
        (302, says(allowed=True), "status 302"),
        (403, says(allowed=True), "status 403"),
        (500, says(allowed=True), "status 500"),
    ],
)
async def test_lies_let_nobody_in(hook: Hook, status: int, answer: Any, words: str) -> None:
    webhook = WebhookAuthorizer(hook.settings)
    hook.status, hook.answer = status, answer
    decision = await Chain([("Webhook", webhook)]).authorize(Attributes(user("bob"), PODS))
    assert not decision.allowed
    assert words in decision.error
    hook.status, hook.answer = 200, says(allowed=True)
    assert (await webhook.authorize(Attributes(user("bob"), PODS))).allowed, "faults are not remembered"
    await webhook.close()


async def test_a_webhook_that_is_away(hook: Hook) -> None:
    await hook.server.close()
    webhook = WebhookAuthorizer(hook.settings)
    decision = await webhook.authorize(Attributes(user("bob"), PODS))
    assert decision.verdict is Verdict.NO_OPINION
    assert decision.error.startswith("authorization webhook: ")
    await webhook.close()
