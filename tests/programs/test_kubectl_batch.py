"""kubectl with Jobs, CronJobs, quotas, limit ranges, disruption budgets and autoscalers, controllers at work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.apiserver import Served
from support.batch import ADMIN, Clock, World, failed, ready, succeeded
from support.client_wait import running
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

from controlplane.apiserver.messages import ApiRequest
from controlplane.client.client import Client
from controlplane.client.local import LocalTransport
from controlplane.controllers.cronjob.controller import CronJobController
from controlplane.controllers.disruption.controller import DisruptionController
from controlplane.controllers.garbage_collector import GarbageCollector
from controlplane.controllers.job.controller import JobController
from controlplane.controllers.resource_quota import ResourceQuotaController
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.resources.catalog import JOB, KINDS, NODE, POD, POD_DISRUPTION_BUDGET, RESOURCE_QUOTA

pytestmark = [pytest.mark.kubectl, needs_kubectl(27)]


@pytest.fixture
async def world(api: Served) -> AsyncIterator[World]:
    """The controllers of this test's kinds, and pods that run when `outcome` says so."""
    client = Client(LocalTransport(api.server.handle, ADMIN, ApiRequest), "test")
    made = World(client, None, Clock())
    informers = made.informers
    parts = (
        JobController(client, informers),
        CronJobController(client, informers),
        DisruptionController(client, informers),
        ResourceQuotaController(client, informers, KINDS, settle=0.01),
        GarbageCollector(client, informers, KINDS),
    )
    async with running(informers.run(), *(part.run() for part in parts)):
        await informers.synced()
        yield made


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_a_job_from_creation_to_deletion(kubectl: Kubectl, world: World) -> None:
    world.outcome = ready
    await kubectl("create", "job", "work", "--image=busybox", "--", "sh", "-c", "true")
    await world.until(lambda: dig(world.get(JOB, "work"), "status", "ready") == 1)
    assert words(await kubectl("get", "jobs"))[0] == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert words(await kubectl("get", "jobs"))[1][:3] == ["work", "Running", "0/1"]
    waiting = asyncio.ensure_future(kubectl("wait", "--for=condition=complete", "job/work", "--timeout=30s"))
    world.outcome = succeeded
    world.look_again()
    assert await waiting == "job.batch/work condition met\n"
    assert words(await kubectl("get", "jobs"))[1][:3] == ["work", "Complete", "1/1"]
    described = await kubectl("describe", "job", "work")
    for line in (
        "Pods Statuses:    0 Active (0 Ready) / 1 Succeeded / 0 Failed",
        "Completion Mode:  NonIndexed",
        "Parallelism:      1",
    ):
        assert line in described
    await world.until(lambda: {"SuccessfulCreate", "Completed"} <= set(world.events()))
    assert "job-controller  Job completed" in await kubectl("describe", "job", "work")
    assert (
        await kubectl("get", "jobs", "--field-selector=status.successful=1", "-o", "name")
        == "job.batch/work\n"
    )
    assert await kubectl("delete", "job", "work") == 'job.batch "work" deleted\n'
    await world.until(lambda: not world.all(POD))


BAD = """
apiVersion: batch/v1
kind: Job
metadata: {name: bad}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}
"""


async def test_a_job_that_fails(kubectl: Kubectl, world: World) -> None:
    world.outcome = failed
    path = kubectl.write("job.yaml", BAD)
    await kubectl("apply", "-f", path)
    await kubectl("wait", "--for=condition=failed", "job/bad", "--timeout=30s")
    assert words(await kubectl("get", "jobs"))[1][:3] == ["bad", "Failed", "0/1"]
    assert await kubectl("apply", "-f", path) == "job.batch/bad unchanged\n"
    kubectl.write("job.yaml", BAD.replace("busybox", "alpine"))
    error = await kubectl.fails("apply", "-f", path)
    assert 'The Job "bad" is invalid: spec.template: Invalid value' in error
    assert "field is immutable" in error


async def test_a_cron_job_and_a_job_made_from_it(kubectl: Kubectl, world: World) -> None:
    world.outcome = succeeded
    await kubectl("create", "cronjob", "tick", "--image=busybox", "--schedule=0 0 1 1 *", "--", "date")
    header, row = words(await kubectl("get", "cronjobs"))
    assert header == ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "SCHEDULE", "AGE"]
    assert row[:10] == ["tick", "0", "0", "1", "1", "*", "<none>", "False", "0", "<none>"]
    assert await kubectl("create", "job", "now", "--from=cronjob/tick") == "job.batch/now created\n"
    await kubectl("wait", "--for=condition=complete", "job/now", "--timeout=30s")
    made = json.loads(await kubectl("get", "job", "now", "-o", "json"))
    assert made["metadata"]["annotations"] == {"cronjob.kubernetes.io/instantiate": "manual"}
    described = await kubectl("describe", "cronjob", "tick")
    assert "Concurrency Policy:            Allow" in described
    assert "Schedule:                      0 0 1 1 *" in described
    assert await kubectl("patch", "cronjob", "tick", "-p", '{"spec":{"suspend":true}}') == (
        "cronjob.batch/tick patched\n"
    )
    error = await kubectl.fails("create", "cronjob", "bad", "--image=busybox", "--schedule=* * * * 9")
    assert "end of range (9) above maximum (6): 9" in error
    # The Job made by hand belongs to the CronJob and goes with it.
    await kubectl("delete", "cronjob", "tick")
    await world.until(lambda: not world.all(JOB))


async def test_quotas_and_limits_as_described(kubectl: Kubectl, world: World) -> None:
    await kubectl("create", "quota", "room", "--hard=pods=2,limits.cpu=2,requests.cpu=1,configmaps=9")
    path = kubectl.write(
        "limits.yaml",
        """
apiVersion: v1
kind: LimitRange
metadata: {name: bounds}
spec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 250m}, max: {cpu: "1"}}]}
""",
    )
    await kubectl("apply", "-f", path)
    await world.until(lambda: dig(world.get(RESOURCE_QUOTA, "room"), "status", "used"))
    await kubectl("run", "one", "--image=busybox")
    await world.until(lambda: dig(world.get(RESOURCE_QUOTA, "room"), "status", "used", "pods") == "1")
    table = await kubectl("get", "quota")
    assert words(table)[0] == ["NAME", "AGE", "REQUEST", "LIMIT"]
    assert "pods: 1/2, requests.cpu: 250m/1" in table
    assert "limits.cpu: 500m/2" in table
    described = words(await kubectl("describe", "quota", "room"))
    assert ["limits.cpu", "500m", "2"] in described
    assert ["Container", "cpu", "-", "1", "250m", "500m", "-"] in words(
        await kubectl("describe", "limits", "bounds")
    )
    namespace = await kubectl("describe", "namespace", "default")
    assert "Resource Quotas" in namespace
    assert "Resource Limits" in namespace
    error = await kubectl.fails("run", "two", "--image=busybox", "--overrides",
                                '{"spec":{"containers":[{"name":"two","image":"busybox","resources":'
                                '{"limits":{"cpu":"3"}}}]}}')  # fmt: skip
    assert "maximum cpu usage per Container is 1, but limit is 3" in error
    await kubectl("run", "two", "--image=busybox")
    error = await kubectl.fails("run", "three", "--image=busybox")
    assert (
        'pods "three" is forbidden: exceeded quota: room, requested: pods=1, used: pods=2, limited: pods=2'
        in error
    )
    await kubectl("delete", "pod", "one", "--grace-period=0", "--force")
    await world.until(lambda: dig(world.get(RESOURCE_QUOTA, "room"), "status", "used", "pods") == "1")


DAEMON = """
apiVersion: v1
kind: Pod
metadata:
  name: daemon
  ownerReferences: [{apiVersion: apps/v1, kind: DaemonSet, name: d, uid: u, controller: true}]
spec: {nodeName: node1, containers: [{name: c, image: i}]}
"""


async def node(world: World) -> None:
    await world.client.create(NODE, {"metadata": {"name": "node1"}})


def pods_ready(world: World, count: int) -> bool:
    return sum(conditions.status_of(pod, "Ready") == "True" for pod in world.all(POD)) == count


async def remove_evicted(world: World) -> None:
    """The kubelet's part: pods that are being deleted go."""
    while True:
        for pod in world.all(POD):
            if pod["metadata"].get("deletionTimestamp"):
                await world.client.delete(POD, name(pod), "default", grace=0)
        await asyncio.sleep(0.05)


async def test_drain_waits_for_the_budget(kubectl: Kubectl, world: World) -> None:
    world.outcome = ready
    await node(world)
    for number in range(2):
        await kubectl("run", f"web{number}", "--image=i", "--labels=app=web")
    await kubectl("create", "poddisruptionbudget", "keep", "--selector=app=web", "--min-available=1")
    await world.until(lambda: pods_ready(world, 2))
    await world.until(
        lambda: dig(world.get(POD_DISRUPTION_BUDGET, "keep"), "status", "disruptionsAllowed") == 1
    )
    assert words(await kubectl("get", "pdb"))[1][:4] == ["keep", "1", "N/A", "1"]
    described = words(await kubectl("describe", "pdb", "keep"))
    assert ["Allowed", "disruptions:", "1"] in described
    refused = await kubectl.fails("drain", "node1")
    assert "cannot delete" in refused
    assert "--force" in refused
    dry = await kubectl("drain", "node1", "--force", "--dry-run=server")
    assert "node/node1 drained (server dry run)" in dry
    async with running(remove_evicted(world)):
        process = await kubectl.start("drain", "node1", "--force", "--timeout=60s")
        assert process.stderr is not None
        seen = b""
        async with asyncio.timeout(30):
            while b"Cannot evict pod as it would violate the pod's disruption budget" not in seen:
                line = await process.stderr.readline()
                assert line, seen
                seen += line
        await kubectl("delete", "pdb", "keep")
        out, _ = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0
        assert out.count(b"evicted\n") == 2
        assert b"node/node1 drained" in out


async def test_drain_looks_at_what_is_on_the_node(kubectl: Kubectl, world: World) -> None:
    world.outcome = ready
    await node(world)
    await kubectl("create", "-f", kubectl.write("daemon.yaml", DAEMON))
    await kubectl(
        "run", "scratch", "--image=i", "--overrides",
        '{"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"scratch","image":"i"}]}}',
    )  # fmt: skip
    await world.until(lambda: pods_ready(world, 2))
    error = await kubectl.fails("drain", "node1")
    assert "emptyDir" in error or "local storage" in error
    async with running(remove_evicted(world)):
        done = await kubectl(
            "drain", "node1", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--disable-eviction",
            "--timeout=30s",
        )  # fmt: skip
    assert "pod/scratch deleted" in done
    assert "node/node1 drained" in done


@needs_kubectl(32)
async def test_autoscale_in_both_versions(kubectl: Kubectl, world: World) -> None:
    await kubectl("create", "deployment", "web", "--image=nginx")
    assert await kubectl("autoscale", "deployment", "web", "--min=2", "--max=5", "--cpu-percent=70") == (
        "horizontalpodautoscaler.autoscaling/web autoscaled\n"
    )
    row = words(await kubectl("get", "hpa"))[1]
    assert row[:7] == ["web", "Deployment/web", "cpu:", "<unknown>/70%", "2", "5", "0"]

    async def get(version: str) -> Any:
        return json.loads(
            await kubectl("get", f"horizontalpodautoscalers.{version}.autoscaling", "web", "-o", "json")
        )

    assert (await get("v1"))["spec"]["targetCPUUtilizationPercentage"] == 70
    [metric] = (await get("v2"))["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    assert json.loads(await kubectl("get", "hpa", "web", "-o", "json"))["apiVersion"] == "autoscaling/v2"
    described = await kubectl("describe", "hpa", "web")
    assert "<unknown> / 70%" in described
    patch = '{"spec":{"metrics":[{"type":"Resource","resource":{"name":"memory","target":' \
            '{"type":"AverageValue","averageValue":"1Gi"}}}]}}'  # fmt: skip
    await kubectl("patch", "hpa", "web", "--type=merge", "-p", patch)
    v1 = await get("v1")
    assert "targetCPUUtilizationPercentage" not in v1["spec"]
    [kept] = json.loads(v1["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"])
    assert kept == {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}}
    versions = json.loads(await kubectl("get", "--raw", "/apis/autoscaling"))
    assert versions["preferredVersion"]["version"] == "v2"
