"""Pods that mount PersistentVolumeClaims: the pure rules, and the scheduler's loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.client_objects import node, pod
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.errors import Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig
from controlplane.resources.catalog import (
    EVENT,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
)
from controlplane.scheduler.scheduler import Scheduler
from controlplane.scheduler.snapshot import NodeInfo, PodInfo
from controlplane.scheduler.volumes import Volumes

MOUNTED = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
SCRATCH = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}
BOUND = {"pv.kubernetes.io/bind-completed": "yes"}
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


def claim(name: str = "data", *, bound: str = "", **extra: Any) -> Object:
    metadata = {"name": name, "namespace": "default", **extra.pop("metadata", {})}
    if bound:
        metadata["annotations"] = BOUND
    return {
        "metadata": metadata,
        "spec": {"volumeName": bound, **extra.pop("spec", {})},
        "status": {"phase": extra.pop("phase", "Bound" if bound else "Pending")},
    }


def storage(
    claims: Sequence[Object], volumes: Sequence[Object] = (), classes: Sequence[Object] = ()
) -> Volumes:
    def named(objects: Sequence[Object]) -> dict[str, Object]:
        return {each["metadata"]["name"]: each for each in objects}

    return Volumes(lambda space, name: named(claims).get(name), named(volumes).get, named(classes).get)


def volume(name: str = "pv1", *nodes: str) -> Object:
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}
    affinity = {"required": {"nodeSelectorTerms": [term]}} if nodes else None
    return {"metadata": {"name": name}, "spec": {"nodeAffinity": affinity}}


def waiting_class(name: str = "local") -> Object:
    return {"metadata": {"name": name}, "volumeBindingMode": "WaitForFirstConsumer"}


@pytest.mark.parametrize(
    ("volumes", "claims", "expected"),
    [
        ([], [], ""),
        ([{"name": "tmp", "emptyDir": {}}], [], ""),
        ([MOUNTED], [], 'persistentvolumeclaim "data" not found'),
        ([MOUNTED], [claim()], UNBOUND),
        # A name alone is a wish; only a volume controller makes it a bond.
        ([MOUNTED], [claim(spec={"volumeName": "pv1"})], UNBOUND),
        ([MOUNTED], [claim(bound="pv1")], ""),
        ([MOUNTED], [claim(spec={"storageClassName": "local"})], ""),
        ([MOUNTED], [claim(spec={"storageClassName": "unknown"})], UNBOUND),
        (
            [MOUNTED],
            [claim(bound="pv1", phase="Lost")],
            'persistentvolumeclaim "data" bound to non-existent persistentvolume "pv1"',
        ),
        (
            [MOUNTED],
            [claim(bound="pv1", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})],
            'persistentvolumeclaim "data" is being deleted',
        ),
        (
            [SCRATCH],
            [],
            'waiting for ephemeral volume controller to create the persistentvolumeclaim "web-scratch"',
        ),
        (
            [SCRATCH],
            [claim("web-scratch", bound="pv1")],
            "PVC default/web-scratch was not created for pod default/web (pod is not owner)",
        ),
    ],
)
def test_what_keeps_a_pod_from_every_node(volumes: list[Object], claims: list[Object], expected: str) -> None:
    subject = storage(claims, [volume()], [waiting_class()])
    assert subject.unmet(PodInfo(pod("web", volumes=volumes))) == expected


def on(name: str, *pods: Object) -> NodeInfo:
    result = NodeInfo(name)
    result.set_object(node(name))
    for number, each in enumerate(pods):
        placed = PodInfo(each)
        placed.uid = f"{name}-{number}"
        result.add(placed)
    return result


@pytest.mark.parametrize(
    ("claims", "volumes", "expected"),
    [
        ([claim(bound="pv1")], [volume()], ""),
        ([claim(bound="pv1")], [volume("pv1", "node1")], ""),
        ([claim(bound="pv1")], [volume("pv1", "node2")], "node(s) had volume node affinity conflict"),
        (
            [claim(bound="pv1")],
            [],
            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ),
        (
            [claim(spec={"storageClassName": "local"})],
            [],
            "node(s) didn't find available persistent volumes to bind",
        ),
        (
            [claim(bound="pv1", spec={"accessModes": ["ReadWriteOncePod"]})],
            [volume()],
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
        ),
    ],
)
def test_what_keeps_a_pod_from_one_node(claims: list[Object], volumes: list[Object], expected: str) -> None:
    check = storage(claims, volumes, [waiting_class()]).placement(PodInfo(pod("web", volumes=[MOUNTED])))
    assert check is not None
    assert check(on("node1", pod("other", volumes=[MOUNTED]))) == expected


def test_a_pod_without_claims_is_not_checked() -> None:
    assert storage([]).placement(PodInfo(pod("web"))) is None


@asynccontextmanager
async def scheduler(api: FakeApi):
    for number in (1, 2):
        await api.client().create(NODE, node(f"node{number}"))
    client = api.client()
    informers = Informers(client)
    async with running(informers.run(), Scheduler(client, informers).run()):
        yield


async def test_a_pod_waits_for_its_claim_and_follows_the_volume() -> None:
    api = FakeApi()
    async with scheduler(api):
        await api.client().create(POD, pod("web", volumes=[MOUNTED]))

        def told() -> str:
            return (conditions.of(api.get(POD, "web", "default"), "PodScheduled") or {}).get("message", "")

        helpless = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        missing = f'0/2 nodes are available: persistentvolumeclaim "data" not found. {helpless}'
        await until(lambda: told() == missing)
        await until(lambda: any(each["message"] == missing for each in api.all(EVENT)))
        await api.client().create(PERSISTENT_VOLUME_CLAIM, claim())
        await until(lambda: told() == f"0/2 nodes are available: {UNBOUND}. {helpless}")
        await api.client().create(PERSISTENT_VOLUME, volume("pv1", "node2"))

        def bind(obj: Object) -> None:
            obj["spec"]["volumeName"] = "pv1"
            obj["metadata"]["annotations"] = BOUND

        api.edit(PERSISTENT_VOLUME_CLAIM, "data", "default", bind)
        # Another node ends the back-off, as a real cluster's changes would.
        await api.client().create(NODE, node("node3"))
        await until(lambda: dig(api.get(POD, "web", "default"), "spec", "nodeName") == "node2")
