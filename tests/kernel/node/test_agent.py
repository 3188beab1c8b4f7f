"""The node agent against a real API server, a real kernel and a runtime process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from support.node.agent_node import NODE_ADDRESS, Node, container_status, is_ready, node, pod
from support.node.runtime_process import until

from controlplane.client.client import PatchType
from controlplane.errors import Object
from controlplane.resources.catalog import CONFIG_MAP, LEASE, NODE, POD, SECRET
from netkit.node import pods, worker

pytestmark = pytest.mark.root

SLEEP = {"image": "busybox", "command": ["sleep", "1000"]}


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Node]:
    async with node(tmp_path) as made:
        yield made


def shell(script: str) -> Object:
    return {"image": "busybox", "command": ["sh", "-c", script]}


async def test_node_registers_with_kubelets_words(machine: Node) -> None:
    found = await machine.client.get(NODE, "node-1")
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
    status = found["status"]
    assert {"type": "InternalIP", "address": NODE_ADDRESS} in status["addresses"]
    ready = next(condition for condition in status["conditions"] if condition["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    assert status["capacity"]["pods"] == "110"
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.32")

    async with asyncio.timeout(60), aclosing(machine.client.watch(LEASE, "kube-node-lease")) as leases:
        async for event in leases:
            assert event.object["metadata"]["name"] == "node-1"
            break


async def test_two_container_pod_of_the_courses(machine: Node) -> None:
    second = {
        "name": "ubuntu",
        "image": "alicek106/rr-test:curl",
        "command": ["tail"],
        "args": ["-f", "/dev/null"],
    }
    await machine.create(
        pod("my-nginx-pod", {"image": "nginx:latest", "ports": [{"containerPort": 80}]}, second)
    )
    found = await machine.until("my-nginx-pod", is_ready)
    status = found["status"]
    assert status["phase"] == "Running"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "PodReadyToStartContainers": "True", "Initialized": "True", "Ready": "True", "ContainersReady": "True",
        "PodScheduled": "True",
    }  # fmt: skip
    app = container_status(found)
    assert app["containerID"].startswith("netkit://")
    assert (app["ready"], app["started"], app["restartCount"]) == (True, True, 0)
    assert status["hostIP"] == NODE_ADDRESS
    assert "Welcome to nginx!" in await machine.http(status["podIP"])
    result = await machine.runtime.client.run_program(
        container_status(found, "ubuntu")["containerID"].removeprefix("netkit://"),
        ["sh", "-c", "hostname; curl -s http://localhost | grep -c 'Welcome to nginx'"],
        10,
    )
    assert result.output == b"my-nginx-pod\n2\n"
    pulled = await machine.event("my-nginx-pod", "Pulled")
    assert pulled["message"] == 'Container image "nginx:latest" already present on machine'
    assert (await machine.event("my-nginx-pod", "Started"))["message"] == "Started container app"


async def test_deletion_stops_containers_and_removes_everything(machine: Node, tmp_path: Path) -> None:
    await machine.create(
        pod("web", shell("trap 'exit 0' TERM; while :; do sleep 0.05; done"), {"name": "n", "image": "nginx"})
    )
    found = await machine.until("web", is_ready)
    address = found["status"]["podIP"]
    await machine.client.delete(POD, "web", "default", grace=20)
    await machine.gone("web")
    await until(lambda: not machine.network.sandboxes, "sandbox removed")
    await until(lambda: not list((tmp_path / "node" / "pods").iterdir()), "directory removed")
    assert await machine.runtime.client.states() == []
    with pytest.raises(OSError, match=r"route|refused|unreachable"):
        await machine.http(address)
    assert (await machine.event("web", "Killing"))["message"].startswith("Stopping container")


async def test_crashing_container_backs_off(machine: Node) -> None:
    await machine.create(pod("crash", shell("echo attempt; exit 3")))
    found = await machine.until(
        "crash", lambda p: container_status(p)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    app = container_status(found)
    assert app["restartCount"] == 1
    assert app["lastState"]["terminated"]["exitCode"] == 3
    message = app["state"]["waiting"]["message"]
    assert message.startswith("back-off 10s restarting failed container=app pod=crash_default(")
    assert found["status"]["phase"] == "Running"
    event = await machine.event("crash", "BackOff")
    assert event["message"].startswith("Back-off restarting failed container app in pod crash_default(")


async def test_unknown_image_says_what_to_do(machine: Node) -> None:
    await machine.create(pod("strange", {"image": "foo/bar:1"}))
    found = await machine.until(
        "strange", lambda p: container_status(p)["state"].get("waiting", {}).get("message")
    )
    waiting = container_status(found)["state"]["waiting"]
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert (
        'image "foo/bar:1" is not in the catalogue; add it with: netkit image add foo/bar:1'
        in waiting["message"]
    )
    await machine.event("strange", "Failed")
    found = await machine.until(
        "strange", lambda p: container_status(p)["state"]["waiting"]["reason"] == "ImagePullBackOff"
    )
    assert found["status"]["phase"] == "Pending"


async def test_missing_program(machine: Node) -> None:
    await machine.create(
        pod("missing", {"image": "busybox", "command": ["no-such-thing"]}, restartPolicy="Never")
    )
    found = await machine.until("missing", lambda p: p["status"]["phase"] == "Failed")
    ended = container_status(found)["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert 'exec: "no-such-thing": executable file not found in $PATH' in ended["message"]
    assert "executable file not found" in (await machine.event("missing", "Failed"))["message"]


async def test_job_like_pods_end(machine: Node) -> None:
    await machine.create(pod("good", shell("echo fine >/dev/termination-log"), restartPolicy="Never"))
    await machine.create(pod("bad", shell("exit 1"), restartPolicy="Never"))
    found = await machine.until("good", lambda p: p["status"]["phase"] == "Succeeded")
    assert container_status(found)["state"]["terminated"]["message"] == "fine\n"
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    await machine.until("bad", lambda p: p["status"]["phase"] == "Failed")
    await until(lambda: not machine.network.sandboxes, "sandboxes of ended pods are removed")


async def test_init_containers_and_sidecars_in_order(machine: Node) -> None:
    spec = pod(
        "staged",
        shell("cat /work/order; exec sleep 1000")
        | {"volumeMounts": [{"name": "work", "mountPath": "/work"}]},
        initContainers=[
            shell("echo first >> /work/order")
            | {"name": "first", "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
            shell("echo side >> /work/order; exec sleep 1000")
            | {
                "name": "side",
                "restartPolicy": "Always",
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
                "startupProbe": {"exec": {"command": ["grep", "side", "/work/order"]}, "periodSeconds": 1},
            },
            shell("echo second >> /work/order")
            | {"name": "second", "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
        ],
        volumes=[{"name": "work", "emptyDir": {}}],
    )
    await machine.create(spec)
    found = await machine.until("staged", is_ready)
    log = next((machine.settings.state_dir / "pods" / found["metadata"]["uid"] / "logs" / "app").iterdir())

    def order() -> list[str]:
        return [line.split(" ", 3)[3] for line in log.read_text().splitlines()]

    assert await until(order, "log") == ["first", "side", "second"]
    statuses = {status["name"]: status for status in found["status"]["initContainerStatuses"]}
    assert statuses["first"]["state"]["terminated"]["reason"] == "Completed"
    assert statuses["side"]["started"]
    await machine.client.delete(POD, "staged", "default", grace=1)
    await machine.gone("staged")


async def test_environment_and_volumes(machine: Node) -> None:
    await machine.client.create(
        CONFIG_MAP,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf", "namespace": "default"},
         "data": {"greeting": "hello", "page.html": "<p>x</p>"}},
    )  # fmt: skip
    await machine.client.create(
        SECRET,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec", "namespace": "default"},
         "data": {"password": "czNjcmV0"}},
    )  # fmt: skip
    script = (
        "echo $GREETING $PASSWORD $ME $NODE $COMBINED; cat /etc/conf/page.html; echo; cat /etc/sec/password; echo; "
        "cat /etc/labels; echo; echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT; "
        "grep nameserver /etc/resolv.conf; tail -1 /etc/hosts; echo x > /etc/conf/new || echo refused"
    )
    container = shell(script) | {
        "env": [
            {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "greeting"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "password"}}},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "COMBINED", "value": "$(GREETING)-$(ME)-$$(ME)"},
        ],
        "volumeMounts": [
            {"name": "conf", "mountPath": "/etc/conf", "readOnly": True},
            {"name": "sec", "mountPath": "/etc/sec"},
            {"name": "down", "mountPath": "/etc/labels", "subPath": "labels"},
        ],
    }
    volumes = [
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "sec", "secret": {"secretName": "sec"}},
        {
            "name": "down",
            "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
        },
    ]
    await machine.create(pod("env", container, volumes=volumes, restartPolicy="Never"))
    found = await machine.until("env", lambda p: p["status"]["phase"] in ("Succeeded", "Failed"))
    log = machine.settings.state_dir / "pods" / found["metadata"]["uid"] / "logs" / "app" / "0.log"

    def lines() -> list[str]:
        return [line.split(" ", 3)[3] for line in log.read_text().splitlines() if " stdout " in line]

    await until(lambda: len(lines()) == 8, "the last line is in the log")
    assert lines() == [
        "hello s3cret env node-1 hello-env-$(ME)", "<p>x</p>", "s3cret", 'app="env"', "10.96.0.1:443",
        "nameserver 10.96.0.10", f"{found['status']['podIP']}\tenv", "refused",
    ]  # fmt: skip


async def test_missing_config_map_waits_and_says_so(machine: Node) -> None:
    container = SLEEP | {
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "a"}}}]
    }
    await machine.create(pod("waits", container))
    found = await machine.until(
        "waits", lambda p: container_status(p)["state"].get("waiting", {}).get("message")
    )
    waiting = container_status(found)["state"]["waiting"]
    assert waiting == {"reason": "CreateContainerConfigError", "message": 'configmap "later" not found'}
    await machine.client.create(
        CONFIG_MAP,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "later", "namespace": "default"},
            "data": {"a": "b"},
        },
    )
    await machine.until("waits", is_ready)


async def test_readiness_gates_and_liveness_restarts(machine: Node) -> None:
    probed = {
        "image": "nginx",
        "ports": [{"name": "http", "containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/ready.html", "port": "http"}, "periodSeconds": 1},
    }
    await machine.create(pod("probed", probed))
    event = await machine.event("probed", "Unhealthy")
    assert event["message"] == "Readiness probe failed: HTTP probe failed with statuscode: 404"
    found = await machine.until("probed", lambda p: p["status"]["phase"] == "Running")
    assert not is_ready(found)
    identity = container_status(found)["containerID"].removeprefix("netkit://")
    script = "mkdir -p /usr/share/nginx/html; touch /usr/share/nginx/html/ready.html"
    await machine.runtime.client.run_program(identity, ["sh", "-c", script], 10)
    await machine.until("probed", is_ready)
    living = shell("sleep 1; touch /tmp/broken; exec sleep 1000") | {
        "livenessProbe": {
            "exec": {"command": ["sh", "-c", "! test -e /tmp/broken"]}, "periodSeconds": 1, "failureThreshold": 1,
            "terminationGracePeriodSeconds": 1,
        }
    }  # fmt: skip
    await machine.create(pod("living", living))
    found = await machine.until("living", lambda p: container_status(p)["restartCount"] == 1)
    assert container_status(found)["lastState"]["terminated"]["exitCode"] == 137
    killing = await machine.event("living", "Killing")
    assert killing["message"] == "Container app failed liveness probe, will be restarted"


async def test_host_network_and_deadline(machine: Node) -> None:
    await machine.create(
        pod("host", {"image": "nginx", "ports": [{"containerPort": 80, "hostPort": 80}]}, hostNetwork=True)
    )
    found = await machine.until("host", is_ready)
    assert found["status"]["podIP"] == NODE_ADDRESS
    assert "Welcome" in await machine.http(NODE_ADDRESS)
    await machine.create(pod("late", SLEEP, activeDeadlineSeconds=1, terminationGracePeriodSeconds=1))
    found = await machine.until("late", lambda p: p["status"]["phase"] == "Failed")
    assert found["status"]["reason"] == "DeadlineExceeded"


async def test_new_agent_adopts_what_stands(machine: Node) -> None:
    await machine.create(pod("web", {"image": "nginx"}, SLEEP | {"name": "side"}))
    await machine.create(pod("orphan", SLEEP | {"name": "app"}, terminationGracePeriodSeconds=1))
    before = await machine.until("web", is_ready)
    await machine.until("orphan", is_ready)
    await machine.stop_agent()
    assert "Welcome" in await machine.http(before["status"]["podIP"])
    await machine.client.delete(POD, "orphan", "default", grace=0)
    await machine.start_agent()
    await until(lambda: len(machine.network.sandboxes) == 1, "orphan removed")
    states = await machine.runtime.client.states()
    assert {state.config.pod_name for state in states} == {"web"}
    after = await machine.get("web")
    assert after is not None
    assert after["status"] == before["status"]
    assert "Welcome" in await machine.http(before["status"]["podIP"])


async def test_death_of_the_runtime_restarts_containers(machine: Node) -> None:
    await machine.create(pod("web", {"image": "nginx"}, SLEEP | {"name": "side"}))
    before = await machine.until("web", is_ready)
    machine.runtime.kill()
    machine.runtime.launch()
    after = await machine.until("web", lambda p: is_ready(p) and container_status(p)["restartCount"] == 1)
    assert container_status(after)["lastState"]["terminated"]["exitCode"] == 137
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert "Welcome" in await machine.http(after["status"]["podIP"])


async def test_edited_image_replaces_the_container(machine: Node) -> None:
    await machine.create(pod("web", {"image": "nginx:1.25"}))
    await machine.until("web", is_ready)
    patch = {"spec": {"containers": [{"name": "app", "image": "httpd:2.4"}]}}
    await machine.client.patch(POD, "web", patch, "default", PatchType.STRATEGIC)
    found = await machine.until(
        "web", lambda p: container_status(p).get("image") == "httpd:2.4" and is_ready(p)
    )
    assert container_status(found)["restartCount"] == 1
    assert "It works!" in await machine.http(found["status"]["podIP"])
    killing = await machine.event("web", "Killing")
    assert killing["message"] == "Container app definition changed, will be restarted"


async def test_pre_stop_hook_runs_before_the_end(machine: Node, tmp_path: Path) -> None:
    container = SLEEP | {
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo stopped > /out/mark"]}}},
        "volumeMounts": [{"name": "out", "mountPath": "/out"}],
    }
    (tmp_path / "out").mkdir()
    volumes = [{"name": "out", "hostPath": {"path": str(tmp_path / "out")}}]
    await machine.create(pod("hooked", container, volumes=volumes))
    await machine.until("hooked", is_ready)
    await machine.client.delete(POD, "hooked", "default", grace=3)
    await machine.gone("hooked")
    assert (tmp_path / "out" / "mark").read_text() == "stopped\n"


async def test_a_failed_worker_is_replaced(machine: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "_REVIVAL_SECONDS", 0.1)
    await machine.create(pod("web", {"image": "nginx"}))
    before = await machine.until("web", is_ready)
    real = worker.PodWorker._sync
    failures = [ValueError("a defect")]

    async def broken(self: worker.PodWorker) -> float:
        if failures:
            raise failures.pop()
        return await real(self)

    monkeypatch.setattr(worker.PodWorker, "_sync", broken)
    await machine.client.patch(POD, "web", {"metadata": {"labels": {"poke": "1"}}}, "default")
    await until(lambda: not failures, "the defect showed")
    await machine.client.delete(POD, "web", "default", grace=1)
    await machine.gone("web")
    assert before["status"]["podIP"]
