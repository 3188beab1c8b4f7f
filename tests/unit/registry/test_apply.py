"""Server-side apply and field owners in the registry: races, permissions, admission, watches, small kinds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from support.registry_kinds import GLOBAL, KINDS, WIDGET, TestClock, named

from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.registry import (
    DeleteOptions,
    PatchType,
    Registry,
    WatchOptions,
    WriteOptions,
)
from controlplane.apiserver.registry.requests import Remarks
from controlplane.errors import Conflict, Forbidden, NotFound
from controlplane.meta.objects import clone
from controlplane.store.memory import MemoryStore

ME = WriteOptions(field_manager="me")
OTHER = WriteOptions(field_manager="other")


def widget(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "test/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec}


async def apply(
    registry: Registry, obj: dict[str, Any], opts: WriteOptions = ME, subresource: str = "", **rest: Any
) -> tuple[dict[str, Any], bool]:
    stored, created = await registry.apply(WIDGET, "default", "a", obj, opts, subresource, **rest)
    return clone(stored.object), created


async def test_many_who_apply_at_once_lose_nothing(registry: Registry) -> None:
    async def one(number: int) -> bool:
        _, created = await apply(
            registry, widget(**{f"field{number}": number}), WriteOptions(field_manager=f"m{number}")
        )
        return created

    assert sum(await asyncio.gather(*(one(number) for number in range(20)))) == 1
    stored = await registry.get(WIDGET, "default", "a")
    assert stored.object["spec"] == {"colour": "red", **{f"field{number}": number for number in range(20)}}
    assert len(stored.object["metadata"]["managedFields"]) == 20


async def test_applying_while_others_update(registry: Registry) -> None:
    await apply(registry, widget(size=1))

    async def patch(number: int) -> None:
        await registry.patch(WIDGET, "default", "a", PatchType.MERGE, {"spec": {f"field{number}": 1}}, OTHER)

    await asyncio.gather(
        *(patch(n) for n in range(10)), *(apply(registry, widget(size=n)) for n in range(10))
    )
    spec = (await registry.get(WIDGET, "default", "a")).object["spec"]
    assert spec.keys() == {"colour", "size", *(f"field{number}" for number in range(10))}


async def test_who_may_not_create_creates_nothing(registry: Registry) -> None:
    async def refuse() -> None:
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await apply(registry, widget(), may_create=refuse)
    with pytest.raises(NotFound):
        await registry.get(WIDGET, "default", "a")
    with pytest.raises(Forbidden):
        await registry.update(GLOBAL, "", "a", named("a"), ME, "", refuse)
    await apply(registry, widget(size=1))
    assert (await apply(registry, widget(size=2), may_create=refuse))[0]["spec"]["size"] == 2


async def test_times_alone_are_no_write(registry: Registry, clock: TestClock) -> None:
    first, _ = await apply(registry, widget(size=1, colour="red"))
    clock.advance(60)
    assert (await apply(registry, widget(size=1, colour="red")))[0] == first
    # A value the server changes on the way differs from the stored one, yet what is stored stays the same.
    put = named("a", spec={"size": 1})
    stored, _ = await registry.update(WIDGET, "default", "a", put, OTHER)
    assert stored.object == first


async def test_an_unchanged_apply_is_seen_by_no_watcher(registry: Registry) -> None:
    first, _ = await apply(registry, widget(size=1))
    version = first["metadata"]["resourceVersion"]
    watch = registry.watch(WIDGET, "default", WatchOptions(resource_version=version))
    await apply(registry, widget(size=1))
    await apply(registry, widget(size=2))
    frame = await asyncio.wait_for(anext(watch), 5)
    await watch.aclose()
    assert frame.stored is not None
    assert frame.stored.object["spec"]["size"] == 2


async def test_after_a_deletion_it_is_created_again(registry: Registry) -> None:
    first, _ = await apply(registry, widget(size=1))
    await registry.delete(WIDGET, "default", "a", DeleteOptions())
    second, created = await apply(registry, widget(size=1))
    assert created
    assert second["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_dry_run_meets_conflicts_too(registry: Registry) -> None:
    await apply(registry, widget(size=1))
    with pytest.raises(Conflict):
        await apply(registry, widget(size=2), WriteOptions(field_manager="other", dry_run=True))


async def test_scale_keeps_the_owners_of_all_else(registry: Registry) -> None:
    await apply(registry, widget(size=1, replicas=1))
    scale = {"spec": {"replicas": 3}}
    await registry.patch(WIDGET, "default", "a", PatchType.MERGE, scale, OTHER, "scale")
    obj = (await registry.get(WIDGET, "default", "a")).object
    assert [
        (e["manager"], e.get("subresource"), e["fieldsV1"]) for e in obj["metadata"]["managedFields"]
    ] == [
        ("me", None, {"f:spec": {".": {}, "f:size": {}}}),
        ("other", "scale", {"f:spec": {"f:replicas": {}}}),
    ]
    # The same number again: nothing is written, the owner stays.
    again = await registry.patch(WIDGET, "default", "a", PatchType.MERGE, scale, ME, "scale")
    assert again.object["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]


@dataclass
class Rewriter:
    """Admission that puts other entries into what it sees."""

    entries: list[dict[str, Any]]

    async def admit(self, request: AdmissionRequest) -> None:
        assert request.obj is not None
        request.obj["metadata"]["managedFields"] = self.entries
        request.obj["spec"]["admitted"] = True


async def test_entries_that_admission_spoils_are_put_back() -> None:
    store = MemoryStore()
    registry = Registry(store, KINDS, admission=[Rewriter([{"manager": "x", "operation": "Odd"}])])
    await registry.start()
    try:
        remarks = Remarks()
        options = WriteOptions(field_manager="me", remarks=remarks)
        stored = await registry.create(WIDGET, "default", named("a", spec={"size": 1}), options)
        (entry,) = stored.object["metadata"]["managedFields"]
        # What admission adds has no owner.
        assert entry["fieldsV1"] == {"f:spec": {".": {}, "f:colour": {}, "f:size": {}}}
        assert stored.object["spec"]["admitted"] is True
        assert remarks.warnings == [
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated "
            "mutating admission controller; please fix your requests: operation must be `Apply` or `Update`"
        ]
    finally:
        await registry.close()
        await store.close()
