"""Admission webhooks: real TLS servers behind a real API server, and all the ways they can misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.apiserver import Served, cluster
from support.webhook import WebhookServer, allow, configuration, deny, lend_keys, patch, webhook_server

from controlplane.apiserver import webhook_client

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
async def hooks(tmp_path: Path, keys: Path) -> AsyncIterator[WebhookServer]:
    lend_keys(keys, tmp_path)
    async with webhook_server(tmp_path) as server:
        yield server
    lend_keys(keys, tmp_path)


@pytest.fixture
async def api(tmp_path: Path, hooks: WebhookServer) -> AsyncIterator[Served]:
    async with cluster(tmp_path, hooks.dial) as served:
        yield served


def config_map(name: str = "x", **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"a": "1"},
        **changes,
    }


async def register(api: Served, sort: str, *webhooks: dict[str, Any], name: str = "test") -> None:
    await api.json(
        "POST",
        f"{GROUP}/{sort.lower()}webhookconfigurations",
        201,
        json=configuration(sort, name, *webhooks),
    )


async def refused(
    api: Served, code: int, obj: dict[str, Any] | None = None, query: str = ""
) -> dict[str, Any]:
    found: dict[str, Any] = await api.json("POST", MAPS + query, code, json=obj or config_map())
    return found


async def test_the_review_says_everything(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check")
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    await api.json("POST", MAPS + "?fieldManager=me", 201, json=config_map())
    (request,) = hook.seen
    assert request["kind"] == request["requestKind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == request["requestResource"]
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["name"], request["namespace"], request["operation"]) == ("x", "default", "CREATE")
    assert request["userInfo"]["username"] == "kubernetes-admin"
    assert "system:masters" in request["userInfo"]["groups"]
    assert request["object"]["data"] == {"a": "1"}
    assert request["oldObject"] is None
    assert request["dryRun"] is False
    assert request["options"]["kind"] == "CreateOptions"
    assert hook.headers[0]["Content-Type"] == "application/json"


async def test_update_and_delete_show_the_old_object(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check")
    await api.json("POST", MAPS, 201, json=config_map())
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    await api.json("PUT", f"{MAPS}/x", 200, json=config_map(data={"a": "2"}))
    await api.json("DELETE", f"{MAPS}/x", 200)
    update, delete = hook.seen
    assert (update["oldObject"]["data"], update["object"]["data"]) == ({"a": "1"}, {"a": "2"})
    assert (delete["operation"], delete["object"], delete["oldObject"]["data"]) == (
        "DELETE",
        None,
        {"a": "2"},
    )


DENIALS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"message": "no!"}, 400, "", 'admission webhook "a.example.com" denied the request: no!'),
    ({}, 400, "", 'admission webhook "a.example.com" denied the request without explanation'),
    (
        {"reason": "Forbidden"},
        400,
        "Forbidden",
        'admission webhook "a.example.com" denied the request: Forbidden',
    ),
    (
        {"message": "m", "code": 403, "reason": "Forbidden"},
        403,
        "Forbidden",
        'admission webhook "a.example.com" denied the request: m',
    ),
    ({"message": "m", "code": 200}, 400, "", 'admission webhook "a.example.com" denied the request: m'),
]


async def test_denial(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check")
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    for status, code, reason, message in DENIALS:
        hook.answer = lambda request, status=status: {"allowed": False, "status": status}
        found = await refused(api, code)
        assert (found["message"], found.get("reason", ""), found["code"]) == (message, reason, code)


async def test_mutation_defaults_and_protects(api: Served, hooks: WebhookServer) -> None:
    hooks.hook(
        "change",
        patch(
            {"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}},
            {"op": "add", "path": "/metadata/uid", "value": "mine"},
            {"op": "replace", "path": "/data/a", "value": "changed"},
            {"op": "add", "path": "/nonsense", "value": 1},
        ),
    )
    await register(api, "Mutating", hooks.webhook("a.example.com", "change"))
    made = await api.json("POST", MAPS, 201, json=config_map())
    assert (made["metadata"]["labels"], made["data"]) == ({"by": "webhook"}, {"a": "changed"})
    assert made["metadata"]["uid"] != "mine"
    assert "nonsense" not in made
    seen = hooks.hooks["change"].seen[0]["object"]["metadata"]
    assert seen["creationTimestamp"] is None
    assert "uid" not in seen


async def test_generated_names_come_after_mutation(api: Served, hooks: WebhookServer) -> None:
    mutating, validating = hooks.hook("change"), hooks.hook("check")
    await register(api, "Mutating", hooks.webhook("a.example.com", "change"))
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    obj = config_map()
    obj["metadata"] = {"generateName": "web-"}
    made = await api.json("POST", MAPS, 201, json=obj)
    assert "name" not in mutating.seen[0]["object"]["metadata"]
    assert validating.seen[0]["object"]["metadata"]["name"] == made["metadata"]["name"]


async def test_webhooks_see_each_others_changes_in_order(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("first", patch({"op": "add", "path": "/data/first", "value": "1"}))
    second = hooks.hook("second", patch({"op": "add", "path": "/data/second", "value": "2"}))
    await register(api, "Mutating", hooks.webhook("b.example.com", "second"), name="b")
    await register(api, "Mutating", hooks.webhook("a.example.com", "first"), name="a")
    made = await api.json("POST", MAPS, 201, json=config_map())
    assert made["data"] == {"a": "1", "first": "1", "second": "2"}
    assert second.seen[0]["object"]["data"] == {"a": "1", "first": "1"}


async def test_reinvocation(api: Served, hooks: WebhookServer) -> None:
    early = hooks.hook("early")
    never = hooks.hook("never")
    hooks.hook("late", patch({"op": "add", "path": "/data/late", "value": "1"}))
    await register(
        api,
        "Mutating",
        hooks.webhook("early.example.com", "early", reinvocationPolicy="IfNeeded"),
        hooks.webhook("never.example.com", "never"),
        hooks.webhook("late.example.com", "late", reinvocationPolicy="IfNeeded"),
    )
    await api.json("POST", MAPS, 201, json=config_map())
    assert [seen["object"]["data"].get("late") for seen in early.seen] == [None, "1"]
    assert len(never.seen) == 1
    assert len(hooks.hooks["late"].seen) == 1


BAD_PATCHES: list[tuple[list[dict[str, Any]], str]] = [
    ([{"op": "remove", "path": "/data/none"}], "none"),
    ([{"op": "replace", "path": "/data", "value": "text"}], "ConfigMap"),
    ([{"op": "replace", "path": "/metadata", "value": 7}], "the patched object has no metadata"),
    ([{"op": "replace", "path": "", "value": []}], "object"),
    ([{"op": "dance", "path": "/x"}], "dance"),
    ([{"op": "test", "path": "/data/a", "value": "1"}] * 10_001, "maximum operations"),
]


async def test_patches_that_break_the_object(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("change")
    await register(api, "Mutating", hooks.webhook("a.example.com", "change"))
    for operations, message in BAD_PATCHES:
        hook.answer = patch(*operations)
        found = await refused(api, 500)
        assert found["message"].startswith("Internal error occurred: ")
        assert message in found["message"]


def raw(body: bytes, status: int = 200) -> Any:
    return lambda request: web.Response(body=body, status=status, content_type="application/json")


def review(response: Any, version: str = "admission.k8s.io/v1", kind: str = "AdmissionReview") -> Any:
    def answer(request: dict[str, Any]) -> web.Response:
        made = response(request) if callable(response) else response
        return web.json_response({"apiVersion": version, "kind": kind, "response": made})

    return answer


LIES = {
    "wrong uid": (
        review({"uid": "no", "allowed": True}),
        'received invalid webhook response: expected response.uid="',
    ),
    "no response": (review(None), "received invalid webhook response: webhook response was absent"),
    "another version": (
        review(lambda request: {"uid": request["uid"], "allowed": True}, version="admission.k8s.io/v9"),
        "received invalid webhook response: expected webhook response of admission.k8s.io/v1",
    ),
    "patch without type": (
        review(lambda request: {"uid": request["uid"], "allowed": True, "patch": "W10="}),
        "webhook returned response.patch but not response.patchType",
    ),
    "type without patch": (
        review(lambda request: {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch"}),
        "webhook returned response.patchType but not response.patch",
    ),
    "unknown type": (
        review(lambda request: {"uid": request["uid"], "allowed": True, "patchType": "X", "patch": "W10="}),
        'webhook returned invalid response.patchType of "X"',
    ),
    "patch that is none": (
        review(
            lambda request: {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": "%%"}
        ),
        "received undecodable patch in webhook response",
    ),
    "not JSON": (raw(b"<html>"), "couldn't get version/kind; json parse error"),
    "a list": (raw(b"[1]"), "json parse error"),
    "empty": (raw(b""), "json parse error"),
    "deep nesting": (raw(b"[" * 100_000), "json parse error"),
    "404": (raw(b"", 404), "the server could not find the requested resource"),
    "500": (raw(b"boom", 500), 'an error on the server ("boom") has prevented the request from succeeding'),
    "redirect": (
        lambda request: web.Response(status=302, headers={"Location": "http://169.254.169.254/"}),
        "the server responded with the status code 302 but did not return more information",
    ),
    "a huge answer": (raw(b" " * (2 * 1024 * 1024)), "http: response body too large"),
}


async def test_lies_are_found_out(api: Served, hooks: WebhookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_client, "ANSWER_MAX", 1024 * 1024)
    hook = hooks.hook("change")
    await register(api, "Mutating", hooks.webhook("a.example.com", "change"))
    for lie, (answer, expected) in LIES.items():
        hook.answer = answer
        found = await refused(api, 500)
        lead = 'Internal error occurred: failed calling webhook "a.example.com": '
        assert found["message"].startswith(lead), lie
        assert expected in found["message"], lie
        (cause,) = found["details"]["causes"]
        assert cause["message"] == found["message"].removeprefix("Internal error occurred: ")
    await api.json("GET", f"{MAPS}/x", 404)


async def test_validating_webhooks_may_not_patch(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", patch({"op": "add", "path": "/data/b", "value": "1"}))
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    found = await refused(api, 500)
    assert "validating webhook may not return response.patch" in found["message"]


async def test_slow_webhooks_are_given_up(api: Served, hooks: WebhookServer) -> None:
    async def never(request: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    hooks.hook("check", never)
    slow = hooks.webhook("a.example.com", "check", timeoutSeconds=1)
    await register(api, "Validating", slow)
    found = await refused(api, 500)
    url = f"{hooks.url}/check?timeout=1s"
    assert found["message"] == (
        'Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: '
        f'Post "{url}": context deadline exceeded'
    )


async def test_nobody_there(api: Served, hooks: WebhookServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gone = hooks.webhook("a.example.com", "check", clientConfig={"url": f"https://127.0.0.1:{port}/x"})
    await register(api, "Validating", gone)
    found = await refused(api, 500)
    assert f"dial tcp 127.0.0.1:{port}: connect: connection refused" in found["message"]


async def test_failure_policy_ignore(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", raw(b"nonsense"))
    for sort in ("Mutating", "Validating"):
        await register(api, sort, hooks.webhook("a.example.com", "check", failurePolicy="Ignore"))
    await api.json("POST", MAPS, 201, json=config_map())
    assert len(hooks.hooks["check"].seen) == 2


async def test_a_refusal_is_no_failure(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", deny("no"))
    await register(api, "Validating", hooks.webhook("a.example.com", "check", failurePolicy="Ignore"))
    await refused(api, 400)


async def test_untrusted_certificates(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check")
    other = {"url": f"{hooks.url}/check"}
    await register(api, "Validating", hooks.webhook("a.example.com", "check", clientConfig=other))
    found = await refused(api, 500)
    assert "x509: certificate signed by unknown authority" in found["message"]
    assert hooks.hooks["check"].seen == []


async def test_services_are_reached_through_their_endpoints(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check")
    service = {"name": "hooks", "namespace": "default", "path": "/check", "port": 8443}
    config = {"service": service, "caBundle": hooks.bundle}
    await register(api, "Validating", hooks.webhook("a.example.com", "check", clientConfig=config))
    target = 'Post "https://hooks.default.svc:8443/check?timeout=5s": '
    assert (await refused(api, 500))["message"].endswith(f'{target}service "hooks" not found')
    await api.json(
        "POST",
        "/api/v1/namespaces/default/services",
        201,
        json={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hooks"},
            "spec": {"ports": [{"port": 8443, "targetPort": 9443}]},
        },
    )
    text = (await refused(api, 500))["message"]
    assert text.endswith(f'{target}no endpoints available for service "hooks"')
    await api.json(
        "POST",
        "/api/v1/namespaces/default/endpoints",
        201,
        json={
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "hooks"},
            "subsets": [{"addresses": [{"ip": "10.244.1.7"}], "ports": [{"port": 9443}]}],
        },
    )
    await api.json("POST", MAPS, 201, json=config_map())
    assert hook.headers[0]["Host"] == "hooks.default.svc:8443"


async def test_dry_run(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check")
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    await api.json("POST", MAPS + "?dryRun=All", 201, json=config_map())
    assert hook.seen[0]["dryRun"] is True
    assert hook.seen[0]["options"]["dryRun"] == ["All"]


async def test_warnings_and_their_cleaning(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", lambda request: {"allowed": True, "warnings": ["be\ncareful", 7, "  "]})
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    async with api.session.post(api.url + MAPS, json=config_map()) as answer:
        assert answer.status == 201
        assert answer.headers.getall("Warning") == ['299 - "be careful"']


ASKED: list[tuple[dict[str, Any], list[str]]] = [
    ({"objectSelector": {"matchLabels": {"pick": "me"}}}, ["b"]),
    ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, ["a", "b"]),
    ({"namespaceSelector": {"matchLabels": {"no": "such"}}}, []),
    ({"matchConditions": [{"name": "b", "expression": "object.metadata.name == 'b'"}]}, ["b"]),
    ({"matchConditions": [{"name": "u", "expression": "request.userInfo.username == 'nobody'"}]}, []),
    (
        {"matchConditions": [{"name": "z", "expression": "authorizer.path('/x').check('get').allowed()"}]},
        ["a", "b"],
    ),
]


async def test_who_is_asked(api: Served, hooks: WebhookServer) -> None:
    for number, (changes, _) in enumerate(ASKED):
        hooks.hook(f"check{number}")
        webhook = hooks.webhook(f"a{number}.example.com", f"check{number}", **changes)
        await register(api, "Validating", webhook, name=f"test{number}")
    await api.json("POST", MAPS, 201, json=config_map("a"))
    labelled = config_map("b")
    labelled["metadata"]["labels"] = {"pick": "me"}
    await api.json("POST", MAPS, 201, json=labelled)
    for number, (changes, expected) in enumerate(ASKED):
        assert [each["name"] for each in hooks.hooks[f"check{number}"].seen] == expected, changes


async def test_match_conditions_that_fail(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check")
    conditions = [{"name": "x", "expression": "object.spec.none == 1"}]
    await register(api, "Validating", hooks.webhook("a.example.com", "check", matchConditions=conditions))
    found = await refused(api, 403)
    assert found["message"] == (
        "configmaps \"x\" is forbidden: expression 'object.spec.none == 1' resulted in error: no such key: spec"
    )
    assert hooks.hooks["check"].seen == []


RULES: list[tuple[dict[str, Any], bool]] = [
    ({"apiGroups": ["*"], "resources": ["*"]}, True),
    ({"resources": ["*/*"]}, True),
    ({"resources": ["configmaps/status"]}, False),
    ({"scope": "Cluster"}, False),
    ({"scope": "Namespaced"}, True),
    ({"operations": ["UPDATE"]}, False),
    ({"operations": ["*"]}, True),
    ({"apiVersions": ["v2"]}, False),
    ({"apiGroups": ["apps"]}, False),
]


async def test_rules(api: Served, hooks: WebhookServer) -> None:
    for number, (rule, _) in enumerate(RULES):
        hooks.hook(f"check{number}")
        webhook = hooks.webhook(f"a{number}.example.com", f"check{number}")
        webhook["rules"][0].update(rule)
        await register(api, "Validating", webhook, name=f"test{number}")
    await api.json("POST", MAPS, 201, json=config_map())
    for number, (rule, asked) in enumerate(RULES):
        assert bool(hooks.hooks[f"check{number}"].seen) is asked, rule


async def test_configurations_are_never_asked_about(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check", deny("all of it"))
    webhook = hooks.webhook("a.example.com", "check")
    webhook["rules"][0].update(operations=["*"], apiGroups=["*"], apiVersions=["*"], resources=["*/*"])
    await register(api, "Validating", webhook)
    await refused(api, 400)
    await api.json("DELETE", f"{GROUP}/validatingwebhookconfigurations/test", 200)
    await api.json("POST", MAPS, 201, json=config_map())
    assert len(hook.seen) == 1


async def test_connections_evictions_and_scales_are_asked_about(api: Served, hooks: WebhookServer) -> None:
    hook = hooks.hook("check", deny("no"))
    webhook = hooks.webhook("a.example.com", "check")
    webhook["rules"][0].update(
        operations=["CONNECT", "CREATE", "UPDATE"],
        apiGroups=["", "apps"],
        resources=["pods/*", "deployments/scale", "deployments/status"],
    )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await api.json("POST", "/api/v1/namespaces/default/pods", 201, json=pod)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]},
        },
    }
    await api.json("POST", "/apis/apps/v1/namespaces/default/deployments", 201, json=deployment)
    await register(api, "Validating", webhook)
    pods = "/api/v1/namespaces/default/pods/p"
    await api.json("POST", f"{pods}/exec?command=sh&stdout=true&container=c", 400)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    await api.json("POST", f"{pods}/eviction", 400, json=eviction)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "n"}}
    await api.json("POST", f"{pods}/binding", 400, json=binding)
    scale = {"spec": {"replicas": 7}}
    await api.json(
        "PATCH",
        "/apis/apps/v1/namespaces/default/deployments/d/scale",
        400,
        data=json.dumps(scale),
        headers={"Content-Type": "application/merge-patch+json"},
    )
    seen = [(each["operation"], each["subResource"], each["kind"]["kind"]) for each in hook.seen]
    assert seen == [
        ("CONNECT", "exec", "PodExecOptions"),
        ("CREATE", "eviction", "Eviction"),
        ("CREATE", "binding", "Binding"),
        ("UPDATE", "scale", "Scale"),
    ]
    assert hook.seen[0]["object"]["command"] == ["sh"]
    assert hook.seen[3]["object"]["spec"] == {"replicas": 7}
    assert hook.seen[3]["oldObject"]["spec"] == {"replicas": 1}


async def test_validating_webhooks_run_at_the_same_time(api: Served, hooks: WebhookServer) -> None:
    both = asyncio.Barrier(2)

    async def together(request: dict[str, Any]) -> dict[str, Any]:
        await both.wait()
        return {"allowed": True}

    hooks.hook("one", together)
    hooks.hook("two", together)
    await register(
        api, "Validating", hooks.webhook("one.example.com", "one"), hooks.webhook("two.example.com", "two")
    )
    await api.json("POST", MAPS, 201, json=config_map())


async def test_changed_configurations_count_at_once(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", deny("no"))
    await register(api, "Validating", hooks.webhook("a.example.com", "check"))
    await refused(api, 400)
    change = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
              {"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": ["DELETE"]}]  # fmt: skip
    await api.json(
        "PATCH",
        f"{GROUP}/validatingwebhookconfigurations/test",
        200,
        data=json.dumps(change),
        headers={"Content-Type": "application/json-patch+json"},
    )
    await api.json("POST", MAPS, 201, json=config_map())


FAULTS: list[tuple[dict[str, Any], str]] = [
        ({"name": "a"}, 'webhooks[0].name: Invalid value: "a": should be a domain with at least three segments '
                        "separated by dots"),
        ({"sideEffects": "Some"}, 'webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", '
                                  '"NoneOnDryRun"'),
        ({"sideEffects": None}, "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 "
                                 "and 30 seconds"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
        ({"clientConfig": {"url": "http://x/y"}}, 'webhooks[0].clientConfig.url: Invalid value: "http": \'https\' is '
                                                  "the only allowed URL scheme; desired format: https://host[/path]"),
        ({"admissionReviewVersions": ["v9"]}, 'webhooks[0].admissionReviewVersions: Invalid value: []string{"v9"}: '
                                              "must include at least one of v1, v1beta1"),
        ({"matchConditions": [{"name": "x", "expression": "y"}]},
         'webhooks[0].matchConditions[0].expression: Invalid value: "y": compilation failed: ERROR: <input>:1:1: '
         "undeclared reference to 'y' (in container '')\n | y\n | ^"),
    ]  # fmt: skip


async def test_configurations_are_validated(api: Served, hooks: WebhookServer) -> None:
    for changes, expected in FAULTS:
        webhook = {**hooks.webhook("a.example.com", "check"), **changes}
        found = await api.json(
            "POST",
            f"{GROUP}/validatingwebhookconfigurations",
            422,
            json=configuration("Validating", "test", webhook),
        )
        cause = found["details"]["causes"][0]
        assert f"{cause['field']}: {cause['message']}" == expected


async def test_defaults(api: Served, hooks: WebhookServer) -> None:
    hooks.hook("check", allow)
    webhook = hooks.webhook("a.example.com", "check")
    del webhook["timeoutSeconds"]
    await register(api, "Mutating", webhook)
    found = await api.json("GET", f"{GROUP}/mutatingwebhookconfigurations/test")
    (made,) = found["webhooks"]
    assert found["metadata"]["generation"] == 1
    assert {key: made[key] for key in made if key not in ("clientConfig", "admissionReviewVersions")} == {
        "name": "a.example.com",
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "timeoutSeconds": 10,
        "reinvocationPolicy": "Never",
        "sideEffects": "None",
        "rules": [{**webhook["rules"][0], "scope": "*"}],
    }
    assert base64.b64decode(made["clientConfig"]["caBundle"]).startswith(b"-----BEGIN")


AUTOSCALER: dict[str, Any] = {
    "apiVersion": "autoscaling/v1",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "h"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 70,
    },
}
AUTOSCALERS = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"


async def test_other_versions_are_converted(api: Served, hooks: WebhookServer) -> None:
    """A rule for v2 is asked about v1 too, in terms of v2; what it changes comes back as v1."""
    equivalent = hooks.hook("v2", patch({"op": "replace", "path": "/spec/maxReplicas", "value": 9}))
    exact = hooks.hook("exact")
    rule = {
        "operations": ["CREATE"],
        "apiGroups": ["autoscaling"],
        "apiVersions": ["v2"],
        "resources": ["horizontalpodautoscalers"],
    }
    await register(
        api,
        "Mutating",
        hooks.webhook("v2.example.com", "v2", rules=[rule]),
        hooks.webhook("exact.example.com", "exact", rules=[rule], matchPolicy="Exact"),
    )
    made = await api.json("POST", AUTOSCALERS, 201, json=AUTOSCALER)
    (request,) = equivalent.seen
    assert exact.seen == []
    assert request["kind"] == {"group": "autoscaling", "version": "v2", "kind": "HorizontalPodAutoscaler"}
    assert request["requestKind"]["version"] == "v1"
    assert (request["resource"]["version"], request["requestResource"]["version"]) == ("v2", "v1")
    assert request["object"]["apiVersion"] == "autoscaling/v2"
    assert request["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    assert made["apiVersion"] == "autoscaling/v1"
    assert (made["spec"]["maxReplicas"], made["spec"]["targetCPUUtilizationPercentage"]) == (9, 70)


async def test_connections_can_be_mutated(api: Served, hooks: WebhookServer) -> None:
    """Options of a connection have no metadata; a patch of them is taken, and breaks nothing."""
    hooks.hook("change", patch({"op": "add", "path": "/container", "value": "c"}))
    hook = hooks.hook("check", deny("seen"))
    rule = {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}
    await register(api, "Mutating", hooks.webhook("change.example.com", "change", rules=[rule]))
    await register(api, "Validating", hooks.webhook("check.example.com", "check", rules=[rule]))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip
    await api.json("POST", "/api/v1/namespaces/default/pods", 201, json=pod)
    await api.json("POST", "/api/v1/namespaces/default/pods/p/exec?command=sh&stdout=true", 400)
    assert hook.seen[0]["object"]["container"] == "c"
