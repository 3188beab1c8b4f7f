"""Admission of classes, priorities, runtimes and storage in use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.apiserver.admission import (
    DefaultIngressClass,
    DefaultStorageClass,
    ExtendedResourceToleration,
    PersistentVolumeClaimResize,
    Priority,
    RuntimeClassAdmission,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
)
from controlplane.apiserver.registry import DeleteOptions, PatchType, Registry, Seed, WriteOptions
from controlplane.errors import Forbidden
from controlplane.meta.objects import clone
from controlplane.resources.catalog import (
    INGRESS,
    INGRESS_CLASS,
    KINDS,
    NODE,
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    PRIORITY_CLASS,
    RUNTIME_CLASS,
    STORAGE_CLASS,
)
from controlplane.resources.scheduling import SYSTEM_CLASSES
from controlplane.store.memory import MemoryStore

WRITE = WriteOptions()


@pytest.fixture
async def registry(store: MemoryStore) -> AsyncIterator[Registry]:
    both = [Priority(), RuntimeClassAdmission()]
    made = Registry(
        store,
        KINDS,
        admission=[
            TaintNodesByCondition(),
            *both,
            DefaultStorageClass(),
            StorageObjectInUseProtection(),
            DefaultIngressClass(),
            ExtendedResourceToleration(),
        ],
        validation=[*both, PersistentVolumeClaimResize()],
    )
    await made.start()
    await made.plant(Seed(PRIORITY_CLASS, found) for found in SYSTEM_CLASSES.values())
    yield made
    await made.close()


async def make(registry: Registry, kind: Any, name: str, namespace: str = "", **body: Any) -> Any:
    metadata = {"name": name, **body.pop("metadata", {})}
    return (await registry.create(kind, namespace, clone({"metadata": metadata, **body}), WRITE)).object


async def pod(registry: Registry, name: str = "p", **spec: Any) -> Any:
    containers = [{"name": "c", "image": "i"}]
    return (await make(registry, POD, name, "default", spec={"containers": containers, **spec}))["spec"]


async def test_priorities_of_pods(registry: Registry) -> None:
    assert (await pod(registry))["priority"] == 0
    await make(registry, PRIORITY_CLASS, "low", value=-7, preemptionPolicy="Never")
    low = await pod(registry, "low", priorityClassName="low")
    assert (low["priority"], low["preemptionPolicy"]) == (-7, "Never")
    critical = await pod(registry, "critical", priorityClassName="system-node-critical")
    assert critical["priority"] == 2000001000
    with pytest.raises(Forbidden) as refused:
        await pod(registry, "x", priorityClassName="nope")
    assert str(refused.value) == 'pods "x" is forbidden: no PriorityClass with name nope was found'
    with pytest.raises(
        Forbidden, match=r"integer value of priority \(3\) must not be provided in pod spec; priority "
    ):
        await pod(registry, "x", priority=3)
    with pytest.raises(Forbidden, match=r"string value of PreemptionPolicy \(Never\) must not be provided"):
        await pod(registry, "x", preemptionPolicy="Never")
    await make(registry, PRIORITY_CLASS, "usual", value=5, globalDefault=True)
    usual = await pod(registry, "usual")
    assert (usual["priority"], usual["priorityClassName"]) == (5, "usual")


async def test_one_default_priority_class_and_the_systems_stay(registry: Registry) -> None:
    await make(registry, PRIORITY_CLASS, "a", value=1, globalDefault=True)
    with pytest.raises(Forbidden) as refused:
        await make(registry, PRIORITY_CLASS, "b", value=1, globalDefault=True)
    assert str(refused.value) == (
        'priorityclasses.scheduling.k8s.io "b" is forbidden: PriorityClass a is already marked as default. Only one '
        "default can exist"
    )
    patch = {"description": "still the default"}
    await registry.patch(PRIORITY_CLASS, "", "a", PatchType.MERGE, patch, WRITE)
    with pytest.raises(Forbidden, match="this is a system priority class and cannot be deleted"):
        await registry.delete(PRIORITY_CLASS, "", "system-cluster-critical", DeleteOptions())
    await registry.delete(PRIORITY_CLASS, "", "a", DeleteOptions())


async def test_runtime_classes(registry: Registry) -> None:
    with pytest.raises(Forbidden, match='pod rejected: RuntimeClass "kata" not found'):
        await pod(registry, runtimeClassName="kata")
    toleration = {"key": "kata", "operator": "Exists"}
    await make(
        registry,
        RUNTIME_CLASS,
        "kata",
        handler="kata",
        overhead={"podFixed": {"cpu": "250m"}},
        scheduling={"nodeSelector": {"kata": "yes"}, "tolerations": [toleration]},
    )
    made = await pod(registry, runtimeClassName="kata", nodeSelector={"a": "b"})
    assert made["overhead"] == {"cpu": "250m"}
    assert made["nodeSelector"] == {"a": "b", "kata": "yes"}
    assert toleration in made["tolerations"]
    with pytest.raises(Forbidden, match="Pod's Overhead doesn't match RuntimeClass's defined Overhead"):
        await pod(registry, "x", runtimeClassName="kata", overhead={"cpu": "1"})
    with pytest.raises(
        Forbidden, match=r"conflict: runtimeClass.scheduling.nodeSelector and pod.spec.nodeSelector"
    ):
        await pod(registry, "x", runtimeClassName="kata", nodeSelector={"kata": "no"})
    with pytest.raises(
        Forbidden, match="Pod Overhead set without corresponding RuntimeClass defined Overhead"
    ):
        await pod(registry, "x", overhead={"cpu": "1"})


def claim(size: str = "1Gi", **spec: Any) -> dict[str, Any]:
    return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}}


async def storage_class(registry: Registry, name: str, *, default: bool = False, **rest: Any) -> None:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    await make(
        registry, STORAGE_CLASS, name, provisioner="a.b/c", metadata={"annotations": annotations}, **rest
    )


async def test_claims_get_the_default_class_and_a_finalizer(registry: Registry) -> None:
    bare = await make(registry, PERSISTENT_VOLUME_CLAIM, "early", "default", **claim())
    assert "storageClassName" not in bare["spec"]
    await storage_class(registry, "other")
    await storage_class(registry, "usual", default=True)
    made = await make(registry, PERSISTENT_VOLUME_CLAIM, "a", "default", **claim())
    assert made["spec"]["storageClassName"] == "usual"
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    assert made["status"] == {"phase": "Pending"}
    none = await make(registry, PERSISTENT_VOLUME_CLAIM, "b", "default", **claim(storageClassName=""))
    assert none["spec"]["storageClassName"] == ""
    volume = {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/"}}
    made = await make(registry, PERSISTENT_VOLUME, "v", spec=volume)
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


async def test_only_what_can_grow_grows(registry: Registry) -> None:
    await storage_class(registry, "fixed")
    await storage_class(registry, "wide", allowVolumeExpansion=True)
    grown = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    status = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    for name in ("fixed", "wide"):
        await make(registry, PERSISTENT_VOLUME_CLAIM, name, "default", **claim(storageClassName=name))
        await registry.patch(
            PERSISTENT_VOLUME_CLAIM, "default", name, PatchType.MERGE, status, WRITE, "status"
        )
    await registry.patch(PERSISTENT_VOLUME_CLAIM, "default", "wide", PatchType.MERGE, grown, WRITE)
    with pytest.raises(Forbidden) as refused:
        await registry.patch(PERSISTENT_VOLUME_CLAIM, "default", "fixed", PatchType.MERGE, grown, WRITE)
    assert str(refused.value) == (
        'persistentvolumeclaims "fixed" is forbidden: only dynamically provisioned pvc can be resized and the '
        "storageclass that provisions the pvc must support resize"
    )


async def test_ingresses_get_the_default_class(registry: Registry) -> None:
    spec = {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"}
    controller = {"controller": "a.b/c"}
    assert "ingressClassName" not in (await make(registry, INGRESS, "early", "default", spec=spec))["spec"]
    await make(registry, INGRESS_CLASS, "usual", spec=controller, metadata={"annotations": annotations})
    assert (await make(registry, INGRESS, "a", "default", spec=spec))["spec"]["ingressClassName"] == "usual"
    old = {"annotations": {"kubernetes.io/ingress.class": "mine"}}
    made = await make(registry, INGRESS, "b", "default", spec=spec, metadata=old)
    assert "ingressClassName" not in made["spec"]


async def test_new_nodes_are_tainted_and_devices_tolerated(registry: Registry) -> None:
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    assert (await make(registry, NODE, "n", spec={}))["spec"]["taints"] == [taint]
    assert (await make(registry, NODE, "m", spec={"taints": [taint]}))["spec"]["taints"] == [taint]
    device = {"name": "c", "image": "i", "resources": {"limits": {"example.com/gpu": "1", "cpu": "1"}}}
    made = await pod(registry, containers=[device])
    assert made["tolerations"] == [{"key": "example.com/gpu", "operator": "Exists"}]
