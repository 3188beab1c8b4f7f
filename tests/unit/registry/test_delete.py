"""delete: grace, finalizers, propagation, preconditions, namespaces, collections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.registry_kinds import NAMESPACE, POD, WIDGET, TestClock, named

from controlplane.apiserver.registry import (
    DeleteOptions,
    ListOptions,
    Propagation,
    Registry,
    WatchOptions,
    WriteOptions,
)
from controlplane.errors import Conflict, NotFound
from controlplane.meta.objects import clone

WRITE = WriteOptions()
RUNNING = {"nodeName": "node-1", "terminationGracePeriodSeconds": 30}


async def make_pod(registry: Registry, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    stored = await registry.create(POD, "default", named("a", spec=spec), WRITE)
    obj = {**clone(stored.object), "status": {"phase": phase}}
    return (await registry.update(POD, "default", "a", obj, WRITE, "status"))[0].object


async def delete_pod(
    registry: Registry, grace: int | None = None, **options: Any
) -> tuple[dict[str, Any], bool]:
    stored, gone = await registry.delete(POD, "default", "a", DeleteOptions(grace_seconds=grace, **options))
    return stored.object["metadata"], gone


async def test_an_object_goes_at_once_and_its_event_carries_the_last_state(registry: Registry) -> None:
    made = await registry.create(WIDGET, "default", named("a", spec={"size": 1}), WRITE)
    watch = registry.watch(WIDGET, "default", WatchOptions(resource_version=str(made.revision)))
    stored, gone = await registry.delete(WIDGET, "default", "a", DeleteOptions())
    assert gone
    frame = await anext(watch)
    await watch.aclose()
    assert frame.type == "DELETED"
    assert frame.stored is not None
    assert frame.stored.object == stored.object
    assert stored.object["spec"]["size"] == 1
    assert stored.object["metadata"]["resourceVersion"] == str(await registry.revision())
    with pytest.raises(NotFound):
        await registry.delete(WIDGET, "default", "a", DeleteOptions())


async def test_a_running_pod_gets_its_grace(registry: Registry, clock: TestClock) -> None:
    await make_pod(registry, **RUNNING)
    metadata, gone = await delete_pod(registry)
    assert not gone
    assert metadata["deletionTimestamp"] == "2026-01-02T03:04:35Z"
    assert metadata["deletionGracePeriodSeconds"] == 30
    metadata, gone = await delete_pod(registry, 0)
    assert gone


async def test_a_second_delete_may_only_shorten(registry: Registry, clock: TestClock) -> None:
    await make_pod(registry, **RUNNING)
    first, _ = await delete_pod(registry, 20)
    clock.advance(3)
    for grace in (None, 20, 60):
        again, gone = await delete_pod(registry, grace)
        assert (again, gone) == (first, False)
    shorter, gone = await delete_pod(registry, 5)
    assert not gone
    assert shorter["deletionTimestamp"] == "2026-01-02T03:04:10Z"
    assert shorter["deletionGracePeriodSeconds"] == 5


@pytest.mark.parametrize(
    ("phase", "spec"),
    [("Pending", {"terminationGracePeriodSeconds": 30}), ("Failed", RUNNING), ("Succeeded", RUNNING)],
)
async def test_unscheduled_and_finished_pods_go_at_once(
    registry: Registry, phase: str, spec: dict[str, Any]
) -> None:
    await make_pod(registry, phase, **spec)
    _, gone = await delete_pod(registry, 30)
    assert gone


async def test_negative_grace_is_one_second(registry: Registry) -> None:
    await make_pod(registry, **RUNNING)
    metadata, gone = await delete_pod(registry, -5)
    assert (metadata["deletionGracePeriodSeconds"], gone) == (1, False)


async def test_a_pod_with_finalizers_outlives_its_grace(registry: Registry) -> None:
    stored = await registry.create(
        POD, "default", named("a", spec=RUNNING, metadata={"finalizers": ["x.io/a"]}), WRITE
    )
    metadata, gone = await delete_pod(registry, 0)
    assert (metadata["deletionGracePeriodSeconds"], gone) == (0, False)
    obj = clone((await registry.get(POD, "default", "a")).object)
    assert obj["metadata"]["uid"] == stored.object["metadata"]["uid"]
    del obj["metadata"]["finalizers"]
    await registry.update(POD, "default", "a", obj, WRITE)
    with pytest.raises(NotFound):
        await registry.get(POD, "default", "a")


async def test_finalizers_hold_an_object_and_count_its_deletion(registry: Registry) -> None:
    made = await registry.create(WIDGET, "default", named("a", metadata={"finalizers": ["x.io/a"]}), WRITE)
    stored, gone = await registry.delete(WIDGET, "default", "a", DeleteOptions())
    metadata = stored.object["metadata"]
    assert not gone
    assert metadata["deletionTimestamp"] == "2026-01-02T03:04:05Z"
    assert metadata["deletionGracePeriodSeconds"] == 0
    assert metadata["generation"] == made.object["metadata"]["generation"] + 1
    revision = await registry.revision()
    again, gone = await registry.delete(WIDGET, "default", "a", DeleteOptions())
    assert (again.object, gone) == (stored.object, False)
    assert await registry.revision() == revision


@pytest.mark.parametrize(
    ("present", "policy", "expected"),
    [
        ([], Propagation.FOREGROUND, ["foregroundDeletion"]),
        ([], Propagation.ORPHAN, ["orphan"]),
        (["orphan"], Propagation.FOREGROUND, ["foregroundDeletion"]),
        (["x.io/a", "orphan"], Propagation.BACKGROUND, ["x.io/a"]),
        (["orphan"], None, ["orphan"]),
        (["orphan"], Propagation.BACKGROUND, None),
        ([], None, None),
    ],
)
async def test_propagation_policies_are_finalizers(
    registry: Registry, present: list[str], policy: Propagation | None, expected: list[str] | None
) -> None:
    await registry.create(WIDGET, "default", named("a", metadata={"finalizers": present}), WRITE)
    stored, gone = await registry.delete(WIDGET, "default", "a", DeleteOptions(propagation=policy))
    assert gone is (expected is None)
    if expected is not None:
        assert stored.object["metadata"]["finalizers"] == expected


async def test_preconditions(registry: Registry) -> None:
    made = await registry.create(WIDGET, "default", named("a"), WRITE)
    with pytest.raises(Conflict, match=r"the UID in the precondition \(x\) does not match the UID in record"):
        await registry.delete(WIDGET, "default", "a", DeleteOptions(uid="x"))
    with pytest.raises(Conflict, match=r"the ResourceVersion in the precondition \(1\) does not match"):
        await registry.delete(WIDGET, "default", "a", DeleteOptions(resource_version="1"))
    metadata = made.object["metadata"]
    options = DeleteOptions(uid=metadata["uid"], resource_version=metadata["resourceVersion"])
    assert (await registry.delete(WIDGET, "default", "a", options))[1]


async def test_a_dry_run_deletes_nothing(registry: Registry) -> None:
    await make_pod(registry, **RUNNING)
    before = await registry.revision()
    metadata, gone = await delete_pod(registry, dry_run=True)
    assert (metadata["deletionGracePeriodSeconds"], gone) == (30, False)
    _, gone = await delete_pod(registry, 0, dry_run=True)
    assert gone
    assert await registry.revision() == before


async def test_of_concurrent_deletes_one_finds_the_object(registry: Registry) -> None:
    await registry.create(WIDGET, "default", named("a"), WRITE)
    outcomes = await asyncio.gather(
        *(registry.delete(WIDGET, "default", "a", DeleteOptions()) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, NotFound) for outcome in outcomes) == 4


async def test_a_namespace_goes_in_two_phases(registry: Registry) -> None:
    await registry.create(NAMESPACE, "", named("a"), WRITE)
    stored, gone = await registry.delete(NAMESPACE, "", "a", DeleteOptions())
    assert not gone
    assert stored.object["status"]["phase"] == "Terminating"
    assert stored.object["metadata"]["deletionTimestamp"]
    with pytest.raises(Conflict, match="The system is ensuring all content is removed from this namespace"):
        await registry.delete(NAMESPACE, "", "a", DeleteOptions())
    body = clone(stored.object)
    body["spec"] = {"finalizers": []}
    kept, _ = await registry.update(NAMESPACE, "", "a", clone(body), WRITE)
    assert kept.object["spec"]["finalizers"] == ["kubernetes"]
    await registry.update(NAMESPACE, "", "a", clone(body), WRITE, "finalize")
    with pytest.raises(NotFound):
        await registry.get(NAMESPACE, "", "a")


async def test_a_namespace_with_finalizers_of_its_own_waits_for_them(registry: Registry) -> None:
    await registry.create(NAMESPACE, "", named("a", metadata={"finalizers": ["x.io/a"]}), WRITE)
    stored, _ = await registry.delete(NAMESPACE, "", "a", DeleteOptions())
    await registry.update(NAMESPACE, "", "a", {**clone(stored.object), "spec": {}}, WRITE, "finalize")
    obj = clone((await registry.get(NAMESPACE, "", "a")).object)
    assert obj["spec"] == {}
    del obj["metadata"]["finalizers"]
    await registry.update(NAMESPACE, "", "a", obj, WRITE)
    with pytest.raises(NotFound):
        await registry.get(NAMESPACE, "", "a")


async def test_a_collection_goes_by_predicate(registry: Registry) -> None:
    for number in range(150):
        await registry.create(WIDGET, "default", named(f"w{number:03}", spec={"size": number}), WRITE)
    await registry.create(WIDGET, "other", named("w000", spec={"size": 200}), WRITE)
    deleted = await registry.delete_collection(
        WIDGET, "default", ListOptions(predicate=lambda obj: obj["spec"]["size"] >= 10), DeleteOptions()
    )
    assert [stored.object["metadata"]["name"] for stored in deleted] == [f"w{n:03}" for n in range(10, 150)]
    assert len((await registry.list(WIDGET, "", ListOptions())).items) == 11
