"""The official Python client: typed, dynamic, watching, electing, in a pod."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import kubernetes
import pytest
from kubernetes import client as api
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config as Election
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream
from support.client_wait import until
from support.client_world import DEPLOYMENT, WIDGET, WIDGETS
from support.live import Live

pytestmark = pytest.mark.filterwarnings("ignore")

T = TypeVar("T")
LIMIT = 20


async def play(server: Live, story: Callable[[api.ApiClient], T], **user: str) -> T:
    """Run the blocking `story` beside the server, with a client of its own."""
    made = kubernetes.config.new_client_from_config(server.kubeconfig(**user))
    try:
        return await asyncio.wait_for(asyncio.to_thread(story, made), 3 * LIMIT)
    finally:
        made.close()


def refused(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    """The code and the Status of a call that fails."""
    with pytest.raises(ApiException) as caught:
        call(*arguments, **options)
    return caught.value.status, json.loads(caught.value.body)


def config_map(name: str, **data: str) -> api.V1ConfigMap:
    return api.V1ConfigMap(metadata=api.V1ObjectMeta(name=name, labels={"app": "x"}), data=data)


def pod(name: str) -> api.V1Pod:
    container = api.V1Container(name="main", image="nginx:1", ports=[api.V1ContainerPort(container_port=80)])
    return api.V1Pod(
        metadata=api.V1ObjectMeta(name=name, labels={"app": name}),
        spec=api.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )


def watched(call: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[tuple[str, Any]]:
    watch = kubernetes.watch.Watch()
    for event in watch.stream(call, *arguments, timeout_seconds=LIMIT, **options):
        yield event["type"], event["object"]
    raise AssertionError("the watch ended before what was waited for")


def pod_running(core: api.CoreV1Api, name: str) -> api.V1Pod:
    events = watched(core.list_namespaced_pod, "default", field_selector=f"metadata.name={name}")
    return next(found for _, found in events if found.status.phase == "Running")


async def test_every_verb_and_every_patch(server: Live) -> None:
    def story(client: api.ApiClient) -> None:
        core = api.CoreV1Api(client)
        made = core.create_namespaced_config_map("default", config_map("a", k="1"), field_manager="tests")
        assert (made.metadata.managed_fields[0].manager, made.metadata.generation) == ("tests", None)
        assert core.read_namespaced_config_map("a", "default").data == {"k": "1"}
        made.data["k"] = "2"
        stored = core.replace_namespaced_config_map("a", "default", made)
        code, status = refused(core.replace_namespaced_config_map, "a", "default", made)
        assert (code, status["reason"]) == (409, "Conflict")
        assert (
            "the object has been modified; please apply your changes to the latest version"
            in status["message"]
        )

        patch = core.patch_namespaced_config_map
        same = patch("a", "default", {"data": {"k": "2"}})
        assert same.metadata.resource_version == stored.metadata.resource_version
        assert patch("a", "default", {"data": {"l": "1"}}).data == {"k": "2", "l": "1"}
        merged = patch("a", "default", {"data": {"k": None}}, _content_type="application/merge-patch+json")
        assert merged.data == {"l": "1"}
        steps = [
            {"op": "test", "path": "/data/l", "value": "1"},
            {"op": "replace", "path": "/data/l", "value": "3"},
        ]
        assert patch("a", "default", steps, _content_type="application/json-patch+json").data == {"l": "3"}
        code, status = refused(patch, "a", "default", steps, _content_type="application/json-patch+json")
        assert (code, status["reason"]) == (422, "Invalid")

        applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"l": "4"}}
        how = {"_content_type": "application/apply-patch+yaml", "field_manager": "robot"}
        code, status = refused(patch, "a", "default", applied, **how)
        assert (code, status["details"]["causes"][0]["field"]) == (409, ".data.l")
        forced = patch("a", "default", applied, force=True, **how)
        owners = {entry.manager: entry.operation for entry in forced.metadata.managed_fields}
        assert (forced.data, owners["robot"]) == ({"l": "4"}, "Apply")
        fresh = {**applied, "metadata": {"name": "b"}}
        assert patch("b", "default", fresh, **how).metadata.uid

        gone = core.delete_namespaced_config_map("a", "default", propagation_policy="Background")
        assert (gone["status"], gone["details"]["name"]) == ("Success", "a")
        code, status = refused(core.read_namespaced_config_map, "a", "default")
        assert (code, status["message"]) == (404, 'configmaps "a" not found')
        core.delete_collection_namespaced_config_map(
            "default", label_selector="app!=x", field_selector="metadata.name=b"
        )
        names = {each.metadata.name for each in core.list_namespaced_config_map("default").items}
        assert names == {"kube-root-ca.crt"}

    await play(server, story)
    asked = server.asked
    path = "/api/v1/namespaces/default/configmaps"
    assert asked.lines()[0] == f"POST {path}?fieldManager=tests 201"
    assert asked.types("PATCH") == {
        "application/strategic-merge-patch+json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
    }
    assert asked.types("POST") == {""}
    assert all(agent.startswith("OpenAPI-Generator/") for agent in asked.agents())
    assert {each.accept for each in asked.requests} == {"application/json"}


async def test_errors_are_told_with_their_causes(server: Live) -> None:
    def story(client: api.ApiClient) -> None:
        core = api.CoreV1Api(client)
        code, status = refused(core.create_namespaced_config_map, "nowhere", config_map("a"))
        assert (code, status["message"]) == (404, 'namespaces "nowhere" not found')
        code, status = refused(core.create_namespaced_pod, "default", pod("No_Name"))
        assert (code, status["reason"]) == (422, "Invalid")
        assert [cause["field"] for cause in status["details"]["causes"]] == ["metadata.name"]
        service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}], "type": "Odd"}}
        code, status = refused(core.create_namespaced_service, "default", service)
        assert {cause["field"] for cause in status["details"]["causes"]} == {
            "spec.ports[0].port",
            "spec.ports[0].targetPort",
            "spec.type",
        }
        core.create_namespaced_config_map("default", config_map("a"))
        code, status = refused(core.create_namespaced_config_map, "default", config_map("a"))
        assert (code, status["reason"]) == (409, "AlreadyExists")
        code, _ = refused(
            core.delete_namespaced_config_map, "a", "default", body={"preconditions": {"uid": "x"}}
        )
        assert code == 409
        strict = {"nosuch": 1}
        code, status = refused(
            core.patch_namespaced_config_map, "a", "default", strict, field_validation="Strict"
        )
        assert (code, 'unknown field "nosuch"' in status["message"]) == (422, True)
        dry = core.create_namespaced_config_map("default", config_map("dry"), dry_run="All")
        assert dry.metadata.uid
        assert refused(core.read_namespaced_config_map, "dry", "default")[0] == 404
        evicted = api.V1Eviction(metadata=api.V1ObjectMeta(name="none"))
        assert refused(core.create_namespaced_pod_eviction, "none", "default", evicted)[0] == 404

    await play(server, story)

    def as_nobody(client: api.ApiClient) -> None:
        code, status = refused(api.CoreV1Api(client).list_namespace)
        assert (code, status["reason"]) == (401, "Unauthorized")

    await play(server, as_nobody, token="wrong")


async def test_pages_watches_and_bookmarks(server: Live) -> None:
    def story(client: api.ApiClient) -> None:
        core = api.CoreV1Api(client)
        for number in range(5):
            core.create_namespaced_config_map("default", config_map(f"c{number}"))
        chosen = {"label_selector": "app=x", "limit": 2}
        page = core.list_namespaced_config_map("default", **chosen)
        first = page.metadata.resource_version
        seen = [each.metadata.name for each in page.items]
        assert page.metadata.remaining_item_count is None
        core.delete_namespaced_config_map("c4", "default")
        while page.metadata._continue:
            page = core.list_namespaced_config_map("default", _continue=page.metadata._continue, **chosen)
            assert page.metadata.resource_version == first
            seen += [each.metadata.name for each in page.items]
        assert seen == [f"c{number}" for number in range(5)]
        exact = core.list_namespaced_config_map(
            "default", label_selector="app=x", resource_version=first, resource_version_match="Exact"
        )
        assert len(exact.items) == 5
        code, status = refused(core.list_namespaced_config_map, "default", resource_version_match="Exact")
        assert code == 422
        code, status = refused(core.list_namespaced_config_map, "default", resource_version="999999999")
        assert (code, status["reason"]) == (504, "Timeout")

        events = watched(
            core.list_namespaced_config_map, "default", resource_version=first, label_selector="app=x"
        )
        assert [(sort, found.metadata.name) for sort, found in [next(events)]] == [("DELETED", "c4")]
        core.patch_namespaced_config_map("c0", "default", {"metadata": {"labels": {"app": "y"}}})
        sort, found = next(events)
        assert (sort, found.metadata.name, found.metadata.labels) == ("DELETED", "c0", {"app": "x"})
        initial = watched(
            core.list_namespaced_config_map, "default", label_selector="app=x", allow_watch_bookmarks=True,
            send_initial_events=True, resource_version_match="NotOlderThan",
        )  # fmt: skip
        sorts = [next(initial) for _ in range(4)]
        assert [sort for sort, _ in sorts] == ["ADDED"] * 3 + ["BOOKMARK"]
        assert sorts[3][1]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}

    def lost(client: api.ApiClient) -> None:
        core = api.CoreV1Api(client)
        code, status = refused(core.list_namespaced_config_map, "default", limit=2, _continue=token)
        assert (code, status["reason"]) == (410, "Expired")
        # What the answer carries leads on, though no longer at one revision.
        rest = core.list_namespaced_config_map("default", limit=2, _continue=status["metadata"]["continue"])
        assert rest.items
        with pytest.raises(ApiException) as caught:
            next(watched(core.list_namespaced_config_map, "default", resource_version=version))
        assert caught.value.status == 410
        assert caught.value.reason.startswith("Expired: too old resource version: ")

    def begin(client: api.ApiClient) -> tuple[str, str]:
        page = api.CoreV1Api(client).list_namespaced_config_map("default", limit=2)
        return page.metadata._continue, page.metadata.resource_version

    await play(server, story)
    token, version = await play(server, begin)
    await play(
        server, lambda client: api.CoreV1Api(client).create_namespaced_config_map("default", config_map("z"))
    )
    await server.restart(forget=True)
    await play(server, lost)
    watches = [each for each in server.asked.requests if each.verb == "watch"]
    assert {each.value("watch") for each in watches} == {"true"}
    assert {each.value("timeoutSeconds") for each in watches} == {str(LIMIT)}


async def test_subresources_of_workloads(server: Live) -> None:
    server.kubelet.log = ["one", "two", "three"]

    def story(client: api.ApiClient) -> None:
        core, apps, policy = api.CoreV1Api(client), api.AppsV1Api(client), api.PolicyV1Api(client)
        kubernetes.utils.create_from_dict(client, DEPLOYMENT)
        for _, found in watched(apps.list_namespaced_deployment, "default"):
            if found.status.available_replicas == 2:
                break
        scale = apps.read_namespaced_deployment_scale("web", "default")
        assert (scale.kind, scale.spec.replicas, scale.status.selector) == ("Scale", 2, "app=web")
        scale.spec.replicas = 3
        assert apps.replace_namespaced_deployment_scale("web", "default", scale).spec.replicas == 3
        apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 1}})
        for _, found in watched(apps.list_namespaced_deployment, "default"):
            if found.status.observed_generation == found.metadata.generation and found.status.replicas == 1:
                break
        status = apps.read_namespaced_deployment_status("web", "default").status
        assert {each.type for each in status.conditions} == {"Available", "Progressing"}

        core.create_namespaced_pod("default", pod("p"))
        running = pod_running(core, "p")
        changed = core.patch_namespaced_pod_status(
            "p", "default", {"status": {"conditions": [{"type": "example.com/x", "status": "True"}]}}
        )
        assert "example.com/x" in {each.type for each in changed.status.conditions}
        assert core.read_namespaced_pod_log("p", "default", tail_lines=2) == "two\nthree\n"
        lines = list(kubernetes.watch.Watch().stream(core.read_namespaced_pod_log, "p", "default"))
        assert lines == ["one", "two", "three"]
        policy.create_namespaced_pod_disruption_budget(
            "default",
            {
                "metadata": {"name": "b"},
                "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}},
            },
        )
        for _, found in watched(policy.list_namespaced_pod_disruption_budget, "default"):
            if found.status.observed_generation == 1 and found.status.current_healthy == 1:
                break
        eviction = api.V1Eviction(metadata=api.V1ObjectMeta(name="p", namespace="default"))
        code, refusal = refused(core.create_namespaced_pod_eviction, "p", "default", eviction)
        assert (code, refusal["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")
        policy.delete_namespaced_pod_disruption_budget("b", "default")
        core.create_namespaced_pod_eviction("p", "default", eviction)
        events = watched(
            core.list_namespaced_pod, "default", field_selector="metadata.name=p",
            resource_version=running.metadata.resource_version,
        )  # fmt: skip
        gone = next(found for sort, found in events if sort == "DELETED")
        assert gone.metadata.uid == running.metadata.uid
        core.create_namespaced_service_account("default", {"metadata": {"name": "robot"}})
        request = api.AuthenticationV1TokenRequest(spec=api.V1TokenRequestSpec(audiences=[]))
        token = core.create_namespaced_service_account_token("robot", "default", request)
        assert token.status.token.count(".") == 2

    await play(server, story)
    asked = server.asked.lines()
    assert "POST /api/v1/namespaces/default/pods/p/eviction 429" in asked
    assert "GET /api/v1/namespaces/default/pods/p/log?tailLines=2 200" in asked
    assert "PUT /apis/apps/v1/namespaces/default/deployments/web/scale 200" in asked


async def test_commands_and_ports_over_websockets(server: Live) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    server.kubelet.ports[80] = listener.sockets[0].getsockname()[1]

    def story(client: api.ApiClient) -> None:
        core = api.CoreV1Api(client)
        core.create_namespaced_pod("default", pod("p"))
        pod_running(core, "p")
        run = core.connect_get_namespaced_pod_exec
        both = {"stdout": True, "stderr": True, "stdin": False, "tty": False}
        assert stream(run, "p", "default", command=["echo", "a b"], **both) == "a b\n"
        session = stream(
            run, "p", "default", command=["sh", "-c", "read x; echo got $x; echo bad >&2; exit 3"],
            **{**both, "stdin": True}, _preload_content=False,
        )  # fmt: skip
        session.write_stdin("hello\n")
        session.run_forever(timeout=LIMIT)
        assert (session.read_stdout(), session.read_stderr()) == ("got hello\n", "bad\n")
        assert session.returncode == 3
        session.close()
        with pytest.raises(ApiException) as caught:
            stream(run, "none", "default", command=["true"], **both)
        assert caught.value.status in (0, 404)
        assert "404" in str(caught.value) or "not found" in str(caught.value)

        forward = portforward(core.connect_get_namespaced_pod_portforward, "p", "default", ports="80")
        channel = forward.socket(80)
        channel.settimeout(LIMIT)
        channel.sendall(b"hi\n")
        said = b""
        while not said.endswith(b"\n"):
            said += channel.recv(100)
        assert said == b"you said hi\n"
        forward.close()

    async with listener:
        await play(server, story)
    paths = {each.short for each in server.asked.requests}
    assert "GET /api/v1/namespaces/default/pods/p/exec" in paths
    assert "GET /api/v1/namespaces/default/pods/p/portforward" in paths


async def test_the_dynamic_client_and_its_cache(server: Live, tmp_path: Path) -> None:
    cache = str(tmp_path / "discovery.json")

    def story(client: api.ApiClient) -> None:
        dynamic = kubernetes.dynamic.DynamicClient(client, cache_file=cache)
        deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
        made = deployments.create(body=DEPLOYMENT, namespace="default")
        assert (made.kind, made.spec.replicas) == ("Deployment", 2)
        found = dynamic.resources.search(kind="Event")
        assert {each.group_version for each in found if "List" not in each.kind} == {"v1", "events.k8s.io/v1"}
        definitions = dynamic.resources.get(
            api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition"
        )
        definitions.create(body=WIDGETS)
        for event in definitions.watch(timeout=LIMIT, name="widgets.example.com"):
            if {"Established": "True"}.items() <= {
                each.type: each.status for each in event["object"].status.conditions or ()
            }.items():
                break
        # The kind is not in the cached discovery: the client looks again by itself.
        widgets = dynamic.resources.get(api_version="example.com/v1", kind="Widget")
        widgets.create(body=WIDGET, namespace="default")
        merged = widgets.patch(
            body={"spec": {"size": 2}},
            name="w",
            namespace="default",
            content_type="application/merge-patch+json",
        )
        assert (merged.spec.size, merged.metadata.generation) == (2, 2)
        status = widgets.status.patch(
            body={"status": {"ready": 1}},
            name="w",
            namespace="default",
            content_type="application/merge-patch+json",
        )
        assert (status.status.ready, status.metadata.generation) == (1, 2)
        applied = widgets.server_side_apply(
            body={**WIDGET, "metadata": {"name": "v"}, "spec": {"size": 7}}, namespace="default",
            field_manager="robot",
        )  # fmt: skip
        assert applied.spec.size == 7
        assert sorted(each.metadata.name for each in widgets.get(namespace="default").items) == ["v", "w"]
        with pytest.raises(kubernetes.dynamic.exceptions.UnprocessibleEntityError):
            widgets.create(
                body={**WIDGET, "metadata": {"name": "bad"}, "spec": {"size": "large"}}, namespace="default"
            )
        widgets.delete(name="w", namespace="default")
        with pytest.raises(kubernetes.dynamic.exceptions.NotFoundError):
            widgets.get(name="w", namespace="default")
        custom = api.CustomObjectsApi(client)
        place = ("example.com", "v1", "default", "widgets")
        listed = custom.list_namespaced_custom_object(*place)
        assert (listed["kind"], len(listed["items"])) == ("WidgetList", 1)
        scaled = custom.patch_namespaced_custom_object_scale(*place, "v", {"spec": {"replicas": 4}})
        assert (scaled["kind"], scaled["spec"]["replicas"]) == ("Scale", 4)
        custom.delete_collection_namespaced_custom_object(*place)
        assert custom.list_namespaced_custom_object(*place)["items"] == []

    await play(server, story)
    lines = server.asked.lines()
    assert lines[:2] == ["GET /version 200", "GET /apis 200"]
    assert "GET /apis/example.com/v1 200" in lines
    server.asked.clear()

    def again(client: api.ApiClient) -> None:
        dynamic = kubernetes.dynamic.DynamicClient(client, cache_file=cache)
        dynamic.resources.get(api_version="apps/v1", kind="Deployment").get(name="web", namespace="default")

    await play(server, again)
    # Groups come from the file now.
    assert server.asked.lines() == [
        "GET /apis/apps/v1 200",
        "GET /apis/apps/v1/namespaces/default/deployments/web 200",
    ]


async def test_an_informer_over_compaction_and_restart(server: Live) -> None:
    changed = threading.Event()
    told: list[tuple[str, str]] = []

    def make(client: api.ApiClient) -> kubernetes.informer.SharedInformer:
        core = api.CoreV1Api(client)
        informer = kubernetes.informer.SharedInformer(
            core.list_namespaced_config_map, namespace="default", label_selector="app=x"
        )
        for sort in ("ADDED", "MODIFIED", "DELETED"):
            informer.add_event_handler(sort, lambda obj, sort=sort: told.append((sort, obj.metadata.name)))
        informer.add_event_handler("ERROR", lambda error: changed.set())
        return informer

    client = kubernetes.config.new_client_from_config(server.kubeconfig())
    core = api.CoreV1Api(client)

    def put(name: str, **data: str) -> Any:
        return asyncio.to_thread(core.create_namespaced_config_map, "default", config_map(name, **data))

    informer = make(client)
    await put("a")
    informer.start()
    try:
        await until(lambda: told == [("ADDED", "a")], LIMIT)
        await put("b")
        await until(lambda: ("ADDED", "b") in told, LIMIT)
        await server.stop()
        await server.lose("/registry/configmaps/default/b")
        await server.start()
        await until(lambda: ("DELETED", "b") in told, LIMIT)
        await put("c")
        await until(lambda: ("ADDED", "c") in told, LIMIT)
        assert sorted(informer.cache.list_keys()) == ["default/a", "default/c"]
    finally:
        await asyncio.to_thread(informer.stop)
        client.close()
    path = "/api/v1/namespaces/default/configmaps"
    lists = [each for each in server.asked.of("GET", path) if each.verb == "list"]
    assert [each.line for each in lists] == [f"GET {path}?labelSelector=app=x 200"] * 2


async def test_leaders_are_elected(server: Live) -> None:
    won: list[str] = []
    lost: list[str] = []
    locks: list[LeaseLock] = []

    def candidate(client: api.ApiClient, name: str) -> LeaderElection:
        lock = LeaseLock("leader", "default", name)
        lock.api_instance = api.CoordinationV1Api(client)
        locks.append(lock)
        return LeaderElection(
            Election(
                lock, lease_duration=3, renew_deadline=2, retry_period=1,
                onstarted_leading=lambda: won.append(name), onstopped_leading=lambda: lost.append(name),
            )
        )  # fmt: skip

    client = kubernetes.config.new_client_from_config(server.kubeconfig())
    leases = api.CoordinationV1Api(client)
    first, second = candidate(client, "first"), candidate(client, "second")
    assert await asyncio.to_thread(first.try_acquire_or_renew)
    assert not await asyncio.to_thread(second.try_acquire_or_renew)
    assert await asyncio.to_thread(first.try_acquire_or_renew)
    lease = await asyncio.to_thread(leases.read_namespaced_lease, "leader", "default")
    assert (lease.spec.holder_identity, lease.spec.lease_duration_seconds) == ("first", 3)
    assert lease.spec.renew_time > lease.spec.acquire_time
    # The first goes; the second takes over when the lease has run out.
    running = threading.Thread(target=second.run, daemon=True)
    running.start()
    await until(lambda: won == ["second"], LIMIT)
    await asyncio.to_thread(leases.delete_namespaced_lease, "leader", "default")
    # Somebody else takes it while it is gone; who led before has to stop.
    await asyncio.to_thread(
        leases.create_namespaced_lease,
        "default",
        {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 60,
         "acquireTime": "2030-01-01T00:00:00.000001Z", "renewTime": "2030-01-01T00:00:00.000001Z"}},
    )  # fmt: skip
    await until(lambda: lost == ["second"], LIMIT)
    client.close()
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    assert server.asked.methods()[:2] == [f"GET {path}/leader", f"POST {path}"]


async def test_in_a_pod(server: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment and the files that a pod has."""
    (tmp_path / "ca.crt").write_bytes(server.served.authority.certificate_pem)

    def prepare(client: api.ApiClient) -> str:
        core, rbac = api.CoreV1Api(client), api.RbacAuthorizationV1Api(client)
        core.create_namespaced_service_account("default", {"metadata": {"name": "robot"}})
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
        rbac.create_namespaced_role("default", {"metadata": {"name": "reader"}, "rules": rules})
        rbac.create_namespaced_role_binding(
            "default",
            {
                "metadata": {"name": "robot"},
                "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            },
        )
        return core.create_namespaced_service_account_token("robot", "default", {"spec": {}}).status.token

    (tmp_path / "token").write_text(await play(server, prepare))
    loader = kubernetes.config.incluster_config.InClusterConfigLoader(
        str(tmp_path / "token"),
        str(tmp_path / "ca.crt"),
        environ={"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)},
    )
    configuration = api.Configuration()
    loader.load_and_set(configuration)
    server.asked.clear()

    def story() -> None:
        with api.ApiClient(configuration) as client:
            core = api.CoreV1Api(client)
            names = {each.metadata.name for each in core.list_namespaced_config_map("default").items}
            assert "kube-root-ca.crt" in names
            code, status = refused(core.list_namespaced_secret, "default")
            assert code == 403
            assert status["message"] == (
                'secrets is forbidden: User "system:serviceaccount:default:robot" cannot list resource "secrets" '
                'in API group "" in the namespace "default"'
            )
            review = api.AuthenticationV1Api(client).create_self_subject_review({})
            assert review.status.user_info.username == "system:serviceaccount:default:robot"
            asked = api.V1SelfSubjectAccessReview(
                spec={
                    "resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}
                }
            )
            assert api.AuthorizationV1Api(client).create_self_subject_access_review(asked).status.allowed

    await asyncio.to_thread(story)
    assert {each.user for each in server.asked.requests} == {"system:serviceaccount:default:robot"}


async def test_the_asynchronous_half(server: Live) -> None:
    """`kubernetes.aio`, which speaks through aiohttp."""
    from kubernetes import aio

    configuration = aio.client.Configuration()
    await aio.config.load_kube_config(server.kubeconfig(), client_configuration=configuration)
    async with aio.client.ApiClient(configuration) as client:
        core = aio.client.CoreV1Api(client)
        await core.create_namespaced_config_map("default", {"metadata": {"name": "a"}, "data": {"k": "1"}})
        async with aio.watch.Watch() as watch:
            async for event in watch.stream(
                core.list_namespaced_config_map, "default", timeout_seconds=LIMIT
            ):
                if event["object"].metadata.name == "a":
                    assert event["object"].data == {"k": "1"}
                    break
        with pytest.raises(aio.client.ApiException) as caught:
            await core.read_namespaced_config_map("b", "default")
        assert caught.value.status == 404
    assert server.asked.lines()[0] == "POST /api/v1/namespaces/default/configmaps 201"
