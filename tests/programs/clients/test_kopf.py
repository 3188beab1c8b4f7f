"""A kopf operator end to end: handlers, finalizers, daemons, timers, peering, webhooks, restarts of both sides."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import kopf
import pytest
from support.client_wait import until
from support.client_world import WIDGET, WIDGETS
from support.live import Live, established, free_port, seen

from controlplane.apiserver.pki import CertificateAuthority
from controlplane.client.client import Client
from controlplane.errors import NotFound, StatusError
from controlplane.meta.objects import name
from controlplane.resources.catalog import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    EVENT,
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_WEBHOOK_CONFIGURATION,
)
from controlplane.resources.kind import Kind

pytestmark = pytest.mark.filterwarnings("ignore")

LIMIT = 20.0
WIDGET_KIND = Kind(
    group="example.com", version="v1", kind="Widget", plural="widgets", singular="widget", namespaced=True
)
PATH = "/apis/example.com/v1/namespaces/default/widgets"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("kopf").setLevel(logging.INFO)


def quick_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.level = logging.INFO
    settings.networking.error_backoffs = [0.05] * 200
    settings.watching.reconnect_backoff = 0.05
    settings.batching.batch_window = 0.02
    settings.batching.idle_timeout = 1
    settings.background.cancellation_timeout = 1
    return settings


@dataclass
class Operator:
    """What its handlers saw, in order."""

    registry: kopf.OperatorRegistry = field(default_factory=kopf.OperatorRegistry)
    settings: kopf.OperatorSettings = field(default_factory=quick_settings)
    told: list[tuple[Any, ...]] = field(default_factory=list)

    @asynccontextmanager
    async def running(self, server: Live, **options: Any) -> AsyncIterator[None]:
        """Ends as an operator does that is asked to: daemons stopped, peering given back."""
        served = server.served

        @kopf.on.login(registry=self.registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            return kopf.ConnectionInfo(
                server=server.url,
                ca_path=str(served.authority.certificate_path),
                certificate_path=str(served.admin.cert),
                private_key_path=str(served.admin.key),
                default_namespace="default",
            )

        # In a loop of its own: at its end kopf cancels every task of its loop.
        stop, ready = threading.Event(), threading.Event()
        options = {"standalone": True, "namespaces": ["default"], **options}
        task = asyncio.create_task(
            asyncio.to_thread(
                kopf.run,
                registry=self.registry,
                settings=self.settings,
                stop_flag=stop,
                ready_flag=ready,
                **options,
            )
        )
        try:
            await until(lambda: ready.is_set() or task.done(), LIMIT)
            assert not task.done(), task.result()
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, LIMIT)


@pytest.fixture
def operator() -> Operator:
    return Operator()


async def widget(client: Client, condition: Any, called: str = "w") -> dict[str, Any]:
    """The widget as soon as `condition` holds for it."""
    return await seen(client, WIDGET_KIND, lambda obj: name(obj) == called and condition(obj), "default")


async def gone(client: Client, kind: Kind, name: str) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await client.get(kind, name, "default")
            except NotFound:
                return
            await asyncio.sleep(0.01)


async def test_a_life_with_handlers_and_a_finalizer(server: Live, operator: Operator) -> None:
    registry, told, client = operator.registry, operator.told, server.client
    on, loop = {"registry": registry}, asyncio.get_running_loop()

    @kopf.on.create("example.com", "v1", "widgets", id="created", **on)
    def created(spec: Any, name: str, namespace: str, body: Any, **_: Any) -> dict[str, Any]:
        child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-child"}}
        kopf.adopt(child, owner=body)
        asyncio.run_coroutine_threadsafe(client.create(CONFIG_MAP, child, namespace), loop).result(LIMIT)
        kopf.info(body, reason="Born", message="a child was made")
        told.append(("create", name, spec["size"]))
        return {"child": f"{name}-child"}

    @kopf.on.update("example.com", "v1", "widgets", **on)
    def updated(diff: Any, patch: Any, **_: Any) -> None:
        told.append(("update", [tuple(step) for step in diff]))
        patch.status["ready"] = diff[0][3]

    @kopf.on.field("example.com", "v1", "widgets", field="spec.size", **on)
    def resized(old: Any, new: Any, retry: int, **_: Any) -> None:
        if old is not None and retry == 0:
            raise kopf.TemporaryError("once more", delay=0.05)
        told.append(("size", old, new, retry))

    @kopf.on.delete("example.com", "v1", "widgets", **on)
    def deleted(name: str, **_: Any) -> None:
        told.append(("delete", name))

    @kopf.on.event("", "v1", "configmaps", labels={"odd": kopf.PRESENT}, **on)
    def noticed(event: Any, name: str, **_: Any) -> None:
        told.append((event["type"], name))

    @kopf.index("example.com", "v1", "widgets", **on)
    def sizes(spec: Any, name: str, **_: Any) -> dict[int, str]:
        return {spec["size"]: name}

    await established(client, WIDGETS)
    async with operator.running(server):
        await client.create(WIDGET_KIND, WIDGET, "default")
        handled = "kopf.zalando.org/last-handled-configuration"
        made = await widget(client, lambda obj: handled in obj["metadata"].get("annotations", ()))
        assert made["status"]["created"] == {"child": "w-child"}
        assert made["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
        assert ("create", "w", 1) in told
        child = await client.get(CONFIG_MAP, "w-child", "default")
        assert child["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]

        await client.patch(WIDGET_KIND, "w", {"spec": {"size": 3}}, "default")
        await widget(client, lambda obj: obj.get("status", {}).get("ready") == 3)
        await until(lambda: ("size", 1, 3, 1) in told, LIMIT)
        assert ("update", [("change", ("spec", "size"), 1, 3)]) in told

        odd = {"metadata": {"name": "odd", "labels": {"odd": ""}}}
        await client.create(CONFIG_MAP, odd, "default")
        await until(lambda: ("ADDED", "odd") in told, LIMIT)

        event = await seen(client, EVENT, lambda obj: obj["reason"] == "Born", "default")
        assert (event["involvedObject"]["name"], event["source"]) == ("w", {"component": "kopf"})
        await client.delete(WIDGET_KIND, "w", "default")
        await gone(client, WIDGET_KIND, "w")
        assert ("delete", "w") in told
        # The garbage collector takes the child with its owner.
        await gone(client, CONFIG_MAP, "w-child")
    asked = server.asked
    assert asked.types("PATCH") == {"application/merge-patch+json", "application/json-patch+json"}
    assert any(agent.startswith("kopf/") for agent in asked.agents())
    watches = [each for each in asked.of("GET", PATH) if each.verb == "watch"]
    assert watches[0].value("resourceVersion").isdigit()
    assert asked.of("PATCH", f"{PATH}/w")
    assert asked.of("PATCH", f"{PATH}/w/status")


async def test_daemons_and_timers(server: Live, operator: Operator) -> None:
    told, client = operator.told, server.client

    @kopf.daemon("example.com", "v1", "widgets", registry=operator.registry, cancellation_backoff=0.1)
    def runs(stopped: Any, name: str, **_: Any) -> None:
        told.append(("started", name))
        stopped.wait()
        told.append(("stopped", name))

    @kopf.timer("example.com", "v1", "widgets", interval=0.05, registry=operator.registry)
    def ticks(patch: Any, status: Any, **_: Any) -> None:
        patch.status["ready"] = status.get("ready", 0) + 1

    await established(client, WIDGETS)
    async with operator.running(server):
        await client.create(WIDGET_KIND, WIDGET, "default")
        await widget(client, lambda obj: obj.get("status", {}).get("ready", 0) >= 3)
        assert told == [("started", "w")]
        await client.delete(WIDGET_KIND, "w", "default")
        await gone(client, WIDGET_KIND, "w")
    assert told == [("started", "w"), ("stopped", "w")]


async def test_a_definition_that_comes_and_goes_under_the_operator(server: Live, operator: Operator) -> None:
    told, client = operator.told, server.client

    @kopf.on.event("example.com", "widgets", registry=operator.registry)
    def noticed(event: Any, name: str, **_: Any) -> None:
        told.append((event["type"], name))

    async with operator.running(server):
        await established(client, WIDGETS)
        await client.create(WIDGET_KIND, WIDGET, "default")
        await until(lambda: any(each[1] == "w" for each in told), LIMIT)
        await client.delete(CUSTOM_RESOURCE_DEFINITION, "widgets.example.com")
        await until(lambda: ("DELETED", "w") in told, LIMIT)
        told.clear()
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    await established(client, WIDGETS)
                except StatusError:
                    await asyncio.sleep(0.02)
                else:
                    break
        await client.create(WIDGET_KIND, WIDGET, "default")
        await until(lambda: any(each[1] == "w" for each in told), LIMIT)


async def test_restarts_of_the_server(server: Live, operator: Operator) -> None:
    """Watches end, history is gone: the operator lists again and misses nothing."""
    told = operator.told

    @kopf.on.create("example.com", "v1", "widgets", registry=operator.registry)
    @kopf.on.resume("example.com", "v1", "widgets", registry=operator.registry)
    def created(name: str, **_: Any) -> None:
        told.append(("create", name))

    @kopf.on.update("example.com", "v1", "widgets", registry=operator.registry)
    def updated(name: str, spec: Any, **_: Any) -> None:
        told.append(("update", name, spec["size"]))

    await established(server.client, WIDGETS)
    async with operator.running(server):
        await server.client.create(WIDGET_KIND, WIDGET, "default")
        await until(lambda: ("create", "w") in told, LIMIT)
        await server.restart()
        await server.client.patch(WIDGET_KIND, "w", {"spec": {"size": 5}}, "default")
        await until(lambda: ("update", "w", 5) in told, LIMIT)
        await server.restart(forget=True)
        await server.client.patch(WIDGET_KIND, "w", {"spec": {"size": 6}}, "default")
        await until(lambda: ("update", "w", 6) in told, LIMIT)
        await server.client.delete(WIDGET_KIND, "w", "default")


async def test_peering_pauses_the_lesser_operator(
    server: Live, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    client, lesser = server.client, Operator()
    for each in (operator, lesser):

        @kopf.on.create("example.com", "v1", "widgets", registry=each.registry)
        def created(name: str, told: list[Any] = each.told, **_: Any) -> None:
            told.append(("create", name))

    await established(client, WIDGETS)
    peering = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "kopfpeerings.kopf.dev"},
        "spec": {
            "group": "kopf.dev",
            "scope": "Namespaced",
            "names": {"plural": "kopfpeerings", "kind": "KopfPeering"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                            },
                        }
                    },
                }
            ],
        },
    }
    await established(client, peering)
    kind = replace(WIDGET_KIND, group="kopf.dev", kind="KopfPeering", plural="kopfpeerings")
    await client.create(
        kind, {"apiVersion": "kopf.dev/v1", "kind": "KopfPeering", "metadata": {"name": "peers"}}, "default"
    )

    async def peers(**priorities: int) -> None:
        def agreed(obj: Any) -> bool:
            return {key: each["priority"] for key, each in obj.get("status", {}).items()} == priorities

        await seen(client, kind, agreed, "default")

    named = {"standalone": False, "peering_name": "peers"}
    async with lesser.running(server, priority=1, identity="lesser", **named):
        async with operator.running(server, priority=100, identity="greater", **named):
            await peers(lesser=1, greater=100)
            await until(lambda: "Pausing operations in favour of" in caplog.text, LIMIT)
            await client.create(WIDGET_KIND, WIDGET, "default")
            await until(lambda: operator.told, LIMIT)
            assert lesser.told == []
        await peers(lesser=1)
        await client.create(WIDGET_KIND, {**WIDGET, "metadata": {"name": "second"}}, "default")
        await until(lambda: ("create", "second") in lesser.told, LIMIT)
    await peers()


async def test_admission_webhooks(server: Live, operator: Operator, tmp_path: Path) -> None:
    client = server.client
    authority = CertificateAuthority.load_or_create(tmp_path / "webhook-pki")
    paths = authority.ensure(
        "webhook", "webhook", (), ["localhost"], [ip_address("127.0.0.1")], client=False, server=True
    )
    operator.settings.admission.managed = "auto.kopf.dev"
    operator.settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1", port=free_port(), host="127.0.0.1", certfile=str(paths.cert), pkeyfile=str(paths.key),
        cadata=authority.certificate_pem,
    )  # fmt: skip

    @kopf.on.validate("example.com", "v1", "widgets", registry=operator.registry)
    def checked(spec: Any, warnings: list[str], **_: Any) -> None:
        warnings.append("looked at")
        if spec.get("size", 0) > 10:
            raise kopf.AdmissionError("too large", code=422)

    @kopf.on.mutate("example.com", "v1", "widgets", operation="CREATE", registry=operator.registry)
    def changed(patch: Any, dryrun: bool, userinfo: Any, **_: Any) -> None:
        patch.metadata["labels"] = {"by": userinfo["username"].replace(":", "."), "dry": str(dryrun)}

    await established(client, WIDGETS)
    async with operator.running(server):
        for kind in (VALIDATING_WEBHOOK_CONFIGURATION, MUTATING_WEBHOOK_CONFIGURATION):
            await seen(client, kind, lambda obj: name(obj) == "auto.kopf.dev" and obj.get("webhooks"))
        async with asyncio.timeout(LIMIT):
            while True:
                made = await server.served.json(
                    "POST", PATH + "?dryRun=All", 201, json={**WIDGET, "metadata": {"name": "dry"}}
                )
                if "labels" in made["metadata"]:
                    break
        assert made["metadata"]["labels"] == {"by": "kubernetes-admin", "dry": "True"}
        async with server.served.session.post(server.url + PATH, json=WIDGET) as answer:
            assert answer.status == 201
            assert answer.headers.getall("Warning") == ['299 - "looked at"']
        with pytest.raises(StatusError, match=r"kopf\.dev\" denied the request: too large$"):
            await client.patch(WIDGET_KIND, "w", {"spec": {"size": 11}}, "default")


OPERATOR = """
import kopf

@kopf.on.create("example.com", "v1", "widgets")
@kopf.on.update("example.com", "v1", "widgets")
@kopf.on.resume("example.com", "v1", "widgets")
def handled(spec, patch, **_):
    patch.status["ready"] = spec["size"] * 10

@kopf.on.delete("example.com", "v1", "widgets")
def deleted(**_):
    pass
"""


async def test_the_program_killed_and_started_again(server: Live, tmp_path: Path) -> None:
    """`kopf run` with a kubeconfig; what happens while it is dead is handled afterwards."""
    client = server.client
    await established(client, WIDGETS)
    script = tmp_path / "operator.py"
    script.write_text(OPERATOR)
    environment = {**os.environ, "KUBECONFIG": server.kubeconfig()}

    async def start() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kopf", "run", str(script), "--standalone", "-n", "default", "--quiet",
            env=environment,
        )  # fmt: skip

    process = await start()
    try:
        await client.create(WIDGET_KIND, WIDGET, "default")
        await widget(client, lambda obj: obj.get("status", {}).get("ready") == 10)
        process.kill()
        await process.wait()
        await client.patch(WIDGET_KIND, "w", {"spec": {"size": 2}}, "default")
        await client.create(WIDGET_KIND, {**WIDGET, "metadata": {"name": "second"}}, "default")
        # The finalizer holds what is deleted until the operator is back.
        await client.delete(WIDGET_KIND, "w", "default")
        held = await client.get(WIDGET_KIND, "w", "default")
        assert held["metadata"]["deletionTimestamp"]
        process = await start()
        await gone(client, WIDGET_KIND, "w")
        await widget(client, lambda obj: obj.get("status", {}).get("ready") == 10, "second")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), LIMIT) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
