"""update, patch and the status, scale and finalize subresources."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.registry_kinds import GLOBAL, PLAIN, POD, WIDGET, named

from controlplane.apiserver.registry import (
    DeleteOptions,
    PatchType,
    Registry,
    WatchOptions,
    WriteOptions,
)
from controlplane.errors import BadRequest, Conflict, Invalid, NotFound, UnsupportedMediaType
from controlplane.meta.objects import clone
from controlplane.resources.kind import Kind

WRITE = WriteOptions()


async def make(registry: Registry, kind: Kind = WIDGET, **rest: Any) -> dict[str, Any]:
    namespace = "default" if kind.namespaced else ""
    stored = await registry.create(kind, namespace, named("a", **rest), WRITE)
    return clone(stored.object)


async def put(
    registry: Registry, obj: dict[str, Any], kind: Kind = WIDGET, subresource: str = ""
) -> dict[str, Any]:
    namespace = "default" if kind.namespaced else ""
    stored, created = await registry.update(kind, namespace, "a", clone(obj), WRITE, subresource)
    assert not created
    return clone(stored.object)


async def merge(registry: Registry, patch: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    stored = await registry.patch(WIDGET, "default", "a", PatchType.MERGE, patch, WRITE, subresource)
    return clone(stored.object)


async def test_a_put_replaces_and_keeps_the_servers_fields(registry: Registry) -> None:
    old = await make(registry, metadata={"labels": {"app": "web"}}, spec={"size": 1})
    new = await put(registry, named("a", spec={"size": 2}))
    assert new["spec"] == {"size": 2, "colour": "red"}
    assert "labels" not in new["metadata"]
    for field in ("uid", "creationTimestamp", "namespace"):
        assert new["metadata"][field] == old["metadata"][field]
    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    assert (await registry.get(WIDGET, "default", "a")).object == new


async def test_generation_counts_changes_of_the_spec_only(registry: Registry) -> None:
    obj = await make(registry, spec={"size": 1})
    obj["metadata"]["labels"] = {"app": "web"}
    obj = await put(registry, obj)
    assert obj["metadata"]["generation"] == 1
    obj["status"] = {"ready": 1}
    obj = await put(registry, obj, subresource="status")
    assert obj["metadata"]["generation"] == 1
    obj["spec"]["size"] = 2
    obj["metadata"]["generation"] = 40
    obj = await put(registry, obj)
    assert obj["metadata"]["generation"] == 2


async def test_a_stale_put_loses(registry: Registry) -> None:
    stale = await make(registry)
    await put(registry, {**stale, "spec": {"size": 1}})
    with pytest.raises(Conflict, match=r'on widgets\.test "a": the object has been modified; please apply'):
        await put(registry, {**stale, "spec": {"size": 2}})
    with pytest.raises(Conflict):
        await merge(registry, {"metadata": {"resourceVersion": stale["metadata"]["resourceVersion"]}})


async def test_kinds_without_unconditional_update_want_a_resource_version(registry: Registry) -> None:
    obj = await make(registry, PLAIN)
    assert await put(registry, {**obj, "data": {"x": "1"}}, PLAIN)
    with pytest.raises(
        Invalid, match=r"metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    ):
        await put(registry, named("a"), PLAIN)


async def test_a_put_of_what_is_there_writes_nothing(registry: Registry) -> None:
    obj = await make(registry, metadata={"labels": {"app": "web"}}, spec={"size": 1})
    before = await registry.revision()
    assert await put(registry, obj) == obj
    assert await merge(registry, {"spec": {"size": 1}}) == obj
    assert (
        await put(
            registry, named("a", metadata={"labels": {"app": "web"}, "annotations": {}}, spec={"size": 1})
        )
        == obj
    )
    assert await registry.revision() == before


async def test_names_and_uids_must_fit(registry: Registry) -> None:
    obj = await make(registry)
    with pytest.raises(
        BadRequest, match=r"the name of the object \(b\) does not match the name on the URL \(a\)"
    ):
        await put(registry, named("b"))
    with pytest.raises(BadRequest, match=r"name must be provided"):
        await put(registry, {"metadata": {}})
    with pytest.raises(BadRequest, match=r"namespace of the provided object does not match"):
        await put(registry, named("a", metadata={"namespace": "x"}))
    with pytest.raises(
        Conflict, match=r"Precondition failed: UID in precondition: other, UID in object meta: "
    ):
        await put(registry, named("a", metadata={"uid": "other"}))
    with pytest.raises(
        BadRequest, match=r"the name of the object \(b\) does not match the name on the URL \(a\)"
    ):
        await merge(registry, {"metadata": {"name": "b"}})
    with pytest.raises(Invalid, match=r"metadata\.creationTimestamp: .*field is immutable"):
        await merge(registry, {"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}})
    assert (await registry.get(WIDGET, "default", "a")).object == obj


async def test_validation_sees_the_new_and_the_old(registry: Registry) -> None:
    await make(registry, spec={"fixed": 1})
    with pytest.raises(Invalid, match=r"spec.fixed"):
        await merge(registry, {"spec": {"fixed": 2}})
    with pytest.raises(Invalid, match=r"spec.size"):
        await merge(registry, {"spec": {"size": -1}})


async def test_the_main_path_ignores_status_and_the_status_path_all_else(registry: Registry) -> None:
    obj = await make(registry, spec={"size": 1})
    obj = await put(registry, {**obj, "status": {"ready": 5}, "spec": {"size": 2}})
    assert "status" not in obj
    obj["status"], obj["spec"]["size"] = {"ready": 1}, 9
    obj = await put(registry, obj, subresource="status")
    assert (obj["status"], obj["spec"]["size"]) == ({"ready": 1}, 2)
    obj = await put(registry, {**named("a"), "spec": {"size": 3}})
    assert (obj["status"], obj["spec"]["size"]) == ({"ready": 1}, 3)
    obj = await merge(registry, {"status": {"more": True}, "spec": {"size": 4}}, "status")
    assert (obj["status"], obj["spec"]["size"]) == ({"ready": 1, "more": True}, 3)


async def test_what_is_not_served_is_not_found(registry: Registry) -> None:
    await make(registry, PLAIN)
    with pytest.raises(NotFound, match=r"could not find the requested resource"):
        await put(registry, named("a"), PLAIN, "status")
    with pytest.raises(NotFound, match=r"could not find the requested resource"):
        await registry.get_scale(PLAIN, "default", "a")
    with pytest.raises(NotFound, match=r'^widgets\.test "a" not found$'):
        await put(registry, named("a"))


async def test_a_put_creates_where_the_kind_allows_it(registry: Registry) -> None:
    stored, created = await registry.update(GLOBAL, "", "a", named("a"), WRITE)
    assert created
    _, created = await registry.update(GLOBAL, "", "a", {**clone(stored.object), "data": 1}, WRITE)
    assert not created


async def test_patches_that_race_are_all_applied(registry: Registry) -> None:
    await make(registry)
    await asyncio.gather(*(merge(registry, {"spec": {f"k{number}": number}}) for number in range(30)))
    spec = (await registry.get(WIDGET, "default", "a")).object["spec"]
    assert {f"k{number}" for number in range(30)} <= spec.keys()


async def test_puts_without_version_that_race_all_succeed(registry: Registry) -> None:
    await make(registry)
    await asyncio.gather(*(put(registry, named("a", spec={"size": number})) for number in range(10)))
    obj = (await registry.get(WIDGET, "default", "a")).object
    assert obj["metadata"]["generation"] >= 10


async def test_of_puts_with_the_same_version_one_wins(registry: Registry) -> None:
    obj = await make(registry)
    outcomes = await asyncio.gather(
        *(put(registry, {**obj, "spec": {"size": number}}) for number in range(1, 11)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 9


async def test_json_patches_and_their_test_operation(registry: Registry) -> None:
    await make(registry, spec={"size": 1})
    operations = [
        {"op": "test", "path": "/spec/size", "value": 1},
        {"op": "replace", "path": "/spec/size", "value": 2},
    ]
    stored = await registry.patch(WIDGET, "default", "a", PatchType.JSON, operations, WRITE)
    assert stored.object["spec"]["size"] == 2
    with pytest.raises(Invalid):
        await registry.patch(WIDGET, "default", "a", PatchType.JSON, operations, WRITE)
    with pytest.raises(UnsupportedMediaType):
        await registry.patch(WIDGET, "default", "a", PatchType.APPLY, {}, WRITE)


async def test_the_check_of_a_patch_sees_and_prunes_the_result(registry: Registry) -> None:
    await make(registry)
    seen: list[Any] = []

    def check(obj: dict[str, Any]) -> dict[str, Any]:
        seen.append(clone(obj["spec"]))
        del obj["spec"]["junk"]
        return obj

    stored = await registry.patch(
        WIDGET, "default", "a", PatchType.MERGE, {"spec": {"junk": 1, "size": 2}}, WRITE, "", check
    )
    assert seen == [{"colour": "red", "junk": 1, "size": 2}]
    assert stored.object["spec"] == {"colour": "red", "size": 2}


async def test_a_failed_or_dry_patch_leaves_the_cached_object_alone(registry: Registry) -> None:
    before = clone(await make(registry, spec={"deep": {"list": [1]}}))
    with pytest.raises(Invalid):
        await merge(registry, {"spec": {"deep": {"list": [2]}, "size": -1}})
    stored = await registry.patch(
        WIDGET, "default", "a", PatchType.MERGE, {"spec": {"size": 5}}, WriteOptions(dry_run=True)
    )
    assert stored.object["spec"]["size"] == 5
    assert (await registry.get(WIDGET, "default", "a")).object == before


async def test_scale(registry: Registry) -> None:
    await make(registry, spec={"replicas": 2, "selector": {"matchLabels": {"app": "web"}}})
    scale = clone((await registry.get_scale(WIDGET, "default", "a")).object)
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 0, "selector": "app=web"})
    stale = clone(scale)
    scale["spec"]["replicas"] = 5
    stored, _ = await registry.update(WIDGET, "default", "a", scale, WRITE, "scale")
    assert stored.object["spec"] == {"replicas": 5}
    obj = (await registry.get(WIDGET, "default", "a")).object
    assert (obj["spec"]["replicas"], obj["metadata"]["generation"]) == (5, 2)
    assert stored.object["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]
    with pytest.raises(Conflict):
        await registry.update(WIDGET, "default", "a", stale, WRITE, "scale")
    stored = await registry.patch(
        WIDGET, "default", "a", PatchType.MERGE, {"spec": {"replicas": 0}}, WRITE, "scale"
    )
    assert stored.object["spec"] == {"replicas": 0}
    with pytest.raises(
        Invalid, match=r"spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ):
        await registry.patch(
            WIDGET, "default", "a", PatchType.MERGE, {"spec": {"replicas": -1}}, WRITE, "scale"
        )


async def test_finalizers_cannot_be_added_to_what_is_being_deleted(registry: Registry) -> None:
    await make(registry, metadata={"finalizers": ["x.io/a"]})
    await registry.delete(WIDGET, "default", "a", DeleteOptions())
    with pytest.raises(Invalid, match=r"no new finalizers can be added if the object is being deleted"):
        await merge(registry, {"metadata": {"finalizers": ["x.io/a", "x.io/b"]}})


async def test_the_last_finalizer_takes_the_object_with_it(registry: Registry) -> None:
    await make(registry, metadata={"finalizers": ["x.io/a", "x.io/b"]})
    await registry.delete(WIDGET, "default", "a", DeleteOptions())
    await merge(registry, {"metadata": {"finalizers": ["x.io/b"]}})
    watch = registry.watch(WIDGET, "default", WatchOptions(resource_version=str(await registry.revision())))
    await merge(registry, {"metadata": {"finalizers": None}})
    frame = await anext(watch)
    assert frame.type == "DELETED"
    await watch.aclose()
    with pytest.raises(NotFound):
        await registry.get(WIDGET, "default", "a")


async def test_a_deletion_cannot_be_taken_back(registry: Registry) -> None:
    obj = await make(registry, metadata={"finalizers": ["x.io/a"]})
    await registry.delete(WIDGET, "default", "a", DeleteOptions())
    new = await put(
        registry, named("a", metadata={"finalizers": obj["metadata"]["finalizers"]}, spec={"size": 3})
    )
    assert new["metadata"]["deletionTimestamp"]
    assert new["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_binding_assigns_a_pod_once(registry: Registry) -> None:
    await make(registry, POD, spec={"containers": []})
    target = {
        "target": {"kind": "Node", "name": "node-1"},
        "metadata": {"name": "a", "annotations": {"x": "y"}},
    }
    await registry.bind("default", "a", target, WRITE)
    pod = (await registry.get(POD, "default", "a")).object
    assert pod["spec"]["nodeName"] == "node-1"
    assert pod["metadata"]["annotations"] == {"x": "y"}
    (condition,) = pod["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    with pytest.raises(Conflict, match=r'on pods/binding "a": pod a is already assigned to node "node-1"'):
        await registry.bind("default", "a", {"target": {"name": "node-2"}}, WRITE)
    with pytest.raises(Invalid, match=r"target.name: Required value"):
        await registry.bind("default", "a", {"target": {}}, WRITE)
    with pytest.raises(NotFound):
        await registry.bind("default", "b", {"target": {"name": "node-2"}}, WRITE)


async def test_of_two_schedulers_one_binds(registry: Registry) -> None:
    await make(registry, POD, spec={"containers": []})
    outcomes = await asyncio.gather(
        *(registry.bind("default", "a", {"target": {"name": f"node-{n}"}}, WRITE) for n in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4


async def test_a_binding_for_another_pod_of_the_name_is_refused(registry: Registry) -> None:
    await make(registry, POD, spec={"containers": []})
    with pytest.raises(Conflict, match=r"UID in precondition"):
        await registry.bind("default", "a", {"metadata": {"uid": "x"}, "target": {"name": "node"}}, WRITE)
