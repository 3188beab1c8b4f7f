"""Modes, their order, ABAC files and the settings' faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.policy import user

from controlplane.apiserver.authz import Attributes, Chain, Decision, Verdict
from controlplane.apiserver.authz.abac import AbacAuthorizer
from controlplane.apiserver.authz.modes import Authorization, AuthorizationError, AuthorizationSettings, Mode
from controlplane.apiserver.authz.webhook import WebhookSettings
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo

PODS = RequestInfo("get", "", True, "", "v1", "ns", "pods", "x")


class Says:
    def __init__(self, verdict: Verdict, reason: str = "", error: str = "") -> None:
        self.decision = Decision(verdict, reason, error)
        self.asked = 0

    async def authorize(self, attributes: Attributes) -> Decision:
        self.asked += 1
        return self.decision


async def test_the_first_opinion_counts() -> None:
    mute, deny, allow = (
        Says(Verdict.NO_OPINION, "mute"), Says(Verdict.DENY, "never"), Says(Verdict.ALLOW, "sure"),
    )  # fmt: skip
    asked = Attributes(user("bob"), PODS)
    decision = await Chain([("A", mute), ("B", deny), ("C", allow)]).authorize(asked)
    assert (decision.verdict, decision.reason, decision.source, allow.asked) == (
        Verdict.DENY, "never", "B", 0,
    )  # fmt: skip
    decision = await Chain([("A", mute), ("C", allow), ("B", deny)]).authorize(asked)
    assert (decision.allowed, decision.source) == (True, "C")
    decision = await Chain([("A", mute), ("D", Says(Verdict.NO_OPINION, "also mute", "away"))]).authorize(
        asked
    )
    assert (decision.verdict, decision.reason, decision.error) == (
        Verdict.NO_OPINION, "mute\nalso mute", "away",
    )  # fmt: skip
    masters = Attributes(user("root", "system:masters"), PODS)
    assert (await Chain([("B", deny)]).authorize(masters)).allowed


async def test_always() -> None:
    asked = Attributes(user("bob"), PODS)
    allow = Authorization.of(AuthorizationSettings((Mode.ALWAYS_ALLOW,)))
    deny = Authorization.of(AuthorizationSettings((Mode.ALWAYS_DENY,)))
    assert (await allow.chain.authorize(asked)).allowed
    decision = await deny.chain.authorize(asked)
    assert (decision.allowed, decision.reason) == (False, "Everything is forbidden.")
    assert (await allow.chain.rules_for(user("bob"), "ns")).resource[0]["verbs"] == ["*"]


def policy_file(directory: Path, *lines: object) -> Path:
    path = directory / "abac.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def line(**spec: object) -> object:
    return {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec}


async def test_abac(tmp_path: Path) -> None:
    abac = AbacAuthorizer(
        policy_file(
            tmp_path,
            "# comment",
            "",
            line(user="alice", namespace="*", resource="*", apiGroup="*"),
            line(group="team", namespace="ns", resource="pods", readonly=True),
            line(user="kubelet", namespace="", resource="nodes"),
            line(user="*", nonResourcePath="/healthz*", readonly=True),
            {"user": "old", "resource": "pods"},
        )
    )

    async def may(who: UserInfo, verb: str, group: str, resource: str, namespace: str) -> bool:
        info = RequestInfo(verb, "", True, group, "v1", namespace, resource)
        return (await abac.authorize(Attributes(who, info))).allowed

    assert await may(user("alice"), "delete", "apps", "deployments", "x")
    assert await may(user("bob", "team"), "list", "", "pods", "ns")
    assert not await may(user("bob", "team"), "create", "", "pods", "ns")
    assert not await may(user("bob", "team"), "list", "apps", "pods", "ns")
    assert not await may(user("bob", "team"), "list", "", "pods", "other")
    assert await may(user("kubelet"), "update", "", "nodes", "")
    assert not await may(user("kubelet"), "update", "", "nodes", "x")
    assert await may(user("old"), "create", "metrics.k8s.io", "pods", "any")
    assert not await may(user("old"), "create", "", "secrets", "any")
    path = Attributes(user("x"), RequestInfo("get", "/healthz/ping"))
    assert (await abac.authorize(path)).allowed
    anonymous = UserInfo("system:anonymous", groups=("system:unauthenticated",))
    refused = await abac.authorize(Attributes(anonymous, RequestInfo("get", "/healthz")))
    assert (refused.verdict, refused.reason) == (Verdict.NO_OPINION, "No policy matched.")
    rules = await abac.rules_for(user("bob", "team"), "ns")
    assert rules.resource == [{"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]}]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{", ":1: not JSON"),
        ("[]", ":1: expected an object"),
        (line(user=1), ":1: user must be text"),
        (line(user="x", readonly="yes"), ":1: readonly must be true or false"),
        (line(user="x", recource="pods"), ":1: unknown field recource"),
        ({"apiVersion": "v1", "kind": "Policy"}, ":1: expected apiVersion abac"),
    ],
)
def test_faults_of_the_abac_file(tmp_path: Path, bad: object, words: str) -> None:
    path = policy_file(tmp_path, bad)
    with pytest.raises(AuthorizationError, match="ABAC policy file") as caught:
        Authorization.of(AuthorizationSettings((Mode.ABAC,), path))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (AuthorizationSettings(()), "at least one authorization mode"),
        (AuthorizationSettings((Mode.RBAC, Mode.RBAC)), "RBAC is given twice"),
        (AuthorizationSettings((Mode.ABAC,)), "ABAC needs a policy file"),
        (AuthorizationSettings((Mode.WEBHOOK,)), "Webhook needs a webhook kubeconfig"),
        (AuthorizationSettings((Mode.RBAC,), Path("/x")), "but authorization mode ABAC is not"),
        (AuthorizationSettings((Mode.ABAC,), Path("/nowhere/x")), "ABAC policy file /nowhere/x"),
        (
            AuthorizationSettings((Mode.WEBHOOK,), webhook=WebhookSettings(Path("/nowhere/x"))),
            "authorization webhook: /nowhere/x: no such kubeconfig file",
        ),
    ],
)
def test_faults_of_the_settings(settings: AuthorizationSettings, words: str) -> None:
    with pytest.raises(AuthorizationError, match=words):
        Authorization.of(settings)
