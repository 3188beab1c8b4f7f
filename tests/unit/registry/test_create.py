"""create: what the server fills in, drops and refuses."""

from __future__ import annotations

import asyncio
import re

import orjson
import pytest
from support.registry_kinds import GLOBAL, PLAIN, WIDGET, TestClock, named

from controlplane.apiserver.registry import DeleteOptions, ListOptions, Registry, WriteOptions
from controlplane.errors import AlreadyExists, BadRequest, Invalid, NotFound, Unclassified
from controlplane.resources.catalog import NODE
from controlplane.store.memory import MemoryStore

WRITE = WriteOptions()


async def test_the_server_fills_in_its_fields_and_drops_what_is_not_the_clients(
    registry: Registry, clock: TestClock
) -> None:
    stored = await registry.create(
        WIDGET,
        "default",
        named(
            "a",
            metadata={
                "uid": "mine", "creationTimestamp": None, "generation": 7, "managedFields": [{}], "labels": {},
                "deletionTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/x",
            },
            status={"ready": True},
        ),
        WRITE,
    )  # fmt: skip
    obj = stored.object
    metadata = obj["metadata"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata.pop("uid"))
    (entry,) = metadata.pop("managedFields")
    assert entry["fieldsV1"] == {"f:spec": {".": {}, "f:colour": {}}}
    assert metadata == {
        "name": "a",
        "namespace": "default",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "generation": 1,
        "resourceVersion": str(await registry.revision()),
    }
    assert (obj["apiVersion"], obj["kind"]) == ("test/v1", "Widget")
    assert obj["spec"] == {"colour": "red"}
    assert "status" not in obj


async def test_what_is_answered_is_what_is_stored(registry: Registry) -> None:
    stored = await registry.create(WIDGET, "default", named("a"), WRITE)
    found = await registry.get(WIDGET, "default", "a")
    assert found.object == stored.object
    assert orjson.loads(stored.encoded) == stored.object
    assert found.revision == stored.revision


async def test_kinds_that_do_not_count_have_no_generation(registry: Registry) -> None:
    stored = await registry.create(PLAIN, "default", named("a"), WRITE)
    assert "generation" not in stored.object["metadata"]


async def test_cluster_scoped_objects_lose_a_namespace(registry: Registry) -> None:
    stored = await registry.create(GLOBAL, "", named("a", metadata={"namespace": "x"}), WRITE)
    assert "namespace" not in stored.object["metadata"]
    assert (await registry.get(GLOBAL, "", "a")).object == stored.object


async def test_a_second_object_of_the_name_is_refused(registry: Registry) -> None:
    await registry.create(WIDGET, "default", named("a"), WRITE)
    await registry.create(WIDGET, "other", named("a"), WRITE)
    with pytest.raises(AlreadyExists, match=r'^widgets\.test "a" already exists$'):
        await registry.create(WIDGET, "default", named("a"), WRITE)
    with pytest.raises(AlreadyExists):
        await registry.create(WIDGET, "default", named("a"), WriteOptions(dry_run=True))


async def test_one_of_many_concurrent_creates_wins(registry: Registry) -> None:
    outcomes = await asyncio.gather(
        *(registry.create(WIDGET, "default", named("a"), WRITE) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 9


async def test_an_object_being_deleted_says_so_when_its_name_is_wanted(registry: Registry) -> None:
    await registry.create(WIDGET, "default", named("a", metadata={"finalizers": ["x.io/y"]}), WRITE)
    await registry.delete(WIDGET, "default", "a", DeleteOptions())
    with pytest.raises(AlreadyExists, match=r'^object is being deleted: widgets\.test "a" already exists$'):
        await registry.create(WIDGET, "default", named("a"), WRITE)


async def test_a_resource_version_is_refused(registry: Registry) -> None:
    with pytest.raises(Unclassified, match=r"^resourceVersion should not be set on objects to be created$"):
        await registry.create(WIDGET, "default", named("a", metadata={"resourceVersion": "5"}), WRITE)


async def test_bodies_of_another_place_or_type_are_refused(registry: Registry) -> None:
    with pytest.raises(BadRequest, match=r"namespace of the provided object does not match"):
        await registry.create(WIDGET, "default", named("a", metadata={"namespace": "x"}), WRITE)
    with pytest.raises(BadRequest, match=r"API version in the data \(v2\) does not match .* \(test/v1\)"):
        await registry.create(WIDGET, "default", named("a", apiVersion="v2"), WRITE)
    with pytest.raises(BadRequest, match=r"cannot be handled as a Widget"):
        await registry.create(WIDGET, "default", named("a", kind="Gadget"), WRITE)
    with pytest.raises(BadRequest, match=r"metadata must be an object"):
        await registry.create(WIDGET, "default", {"metadata": []}, WRITE)


async def test_faults_are_gathered_with_their_fields(registry: Registry) -> None:
    with pytest.raises(Invalid) as caught:
        await registry.create(WIDGET, "default", named("A_b", spec={"size": -1}), WRITE)
    assert [cause.field for cause in caught.value.causes] == ["metadata.name", "spec.size"]
    assert caught.value.kind == "Widget"
    with pytest.raises(Invalid, match=r"name or generateName is required"):
        await registry.create(WIDGET, "default", {"metadata": {}}, WRITE)


async def test_generate_name_adds_five_characters(registry: Registry) -> None:
    names = set()
    for _ in range(5):
        body = {"metadata": {"generateName": "web-"}}
        names.add((await registry.create(WIDGET, "default", body, WRITE)).object["metadata"]["name"])
    assert len(names) == 5
    assert all(re.fullmatch(r"web-[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in names)


async def test_generate_name_gives_up_after_eight_names(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(base: str) -> str:
        drawn.append(base)
        return f"{base}same"

    monkeypatch.setattr("controlplane.apiserver.registry.creation.generate_name", draw)
    await registry.create(WIDGET, "default", named("web-same"), WRITE)
    with pytest.raises(
        AlreadyExists, match=r"the server was not able to generate a unique name for the object"
    ):
        await registry.create(WIDGET, "default", {"metadata": {"generateName": "web-"}}, WRITE)
    assert len(drawn) == 8


async def test_generate_name_goes_on_after_a_taken_name(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["web-a", "web-a", "web-b"])
    monkeypatch.setattr("controlplane.apiserver.registry.creation.generate_name", lambda base: next(names))
    await registry.create(WIDGET, "default", named("web-a"), WRITE)
    stored = await registry.create(WIDGET, "default", {"metadata": {"generateName": "web-"}}, WRITE)
    assert stored.object["metadata"]["name"] == "web-b"
    assert stored.object["metadata"]["generateName"] == "web-"


async def test_a_dry_run_stores_nothing(registry: Registry, store: MemoryStore) -> None:
    before = await store.revision()
    stored = await registry.create(WIDGET, "default", named("a"), WriteOptions(dry_run=True))
    assert stored.object["metadata"]["uid"]
    assert "resourceVersion" not in stored.object["metadata"]
    assert await store.revision() == before
    with pytest.raises(NotFound, match=r'^widgets\.test "a" not found$'):
        await registry.get(WIDGET, "default", "a")
    assert list((await registry.list(WIDGET, "", ListOptions())).items) == []


async def test_a_node_may_be_registered_with_its_status(registry: Registry) -> None:
    status = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}], "capacity": {"cpu": "2000m"}}
    made = (await registry.create(NODE, "", named("n", spec={}, status=status), WRITE)).object
    assert made["status"] == {**status, "capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}
    assert all("f:status" not in entry["fieldsV1"] for entry in made["metadata"].get("managedFields", ()))
    wrong = named("m", spec={}, status={"capacity": {"cpu": "-1"}})
    with pytest.raises(Invalid, match=r"status\.capacity\[?\.?cpu"):
        await registry.create(NODE, "", wrong, WRITE)
