"""The garbage collector against an API in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.client_fake import FakeApi
from support.client_objects import deployment, pod, replica_set
from support.client_wait import running, until

from controlplane.client.informer import Informers
from controlplane.controllers.garbage_collector import GarbageCollector
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.owners import owner_reference, references
from controlplane.resources.catalog import CONFIG_MAP, DEPLOYMENT, KINDS, POD, REPLICA_SET


@asynccontextmanager
async def collector(api: FakeApi) -> AsyncIterator[None]:
    client = api.client()
    informers = Informers(client)
    subject = GarbageCollector(client, informers, KINDS)
    async with running(informers.run(), subject.run()):
        await informers.synced()
        yield


def owned(obj: Object, *owners: Object, block: bool = True) -> Object:
    obj["metadata"]["ownerReferences"] = [
        owner_reference(owner["apiVersion"], owner["kind"], owner, controller=number == 0, block=block)
        for number, owner in enumerate(owners)
    ]
    return obj


async def family(api: FakeApi, pods: int = 2) -> tuple[Object, Object]:
    client = api.client()
    top = await client.create(DEPLOYMENT, deployment())
    middle = await client.create(REPLICA_SET, owned(replica_set(), top))
    for number in range(pods):
        await client.create(POD, owned(pod(f"p{number}"), middle))
    return top, middle


def count(api: FakeApi) -> tuple[int, int, int]:
    return len(api.all(DEPLOYMENT)), len(api.all(REPLICA_SET)), len(api.all(POD))


async def test_background_takes_the_whole_tree() -> None:
    api = FakeApi()
    await family(api)
    async with collector(api):
        await api.client().delete(DEPLOYMENT, "web", "default", propagation="Background")
        await until(lambda: count(api) == (0, 0, 0))


async def test_owners_that_went_while_nobody_looked_are_noticed_at_the_start() -> None:
    api = FakeApi()
    await family(api)
    api.remove(DEPLOYMENT, "web", "default")
    async with collector(api):
        await until(lambda: count(api) == (0, 0, 0))


async def test_foreground_goes_bottom_up() -> None:
    api = FakeApi()
    await family(api)
    for number in range(2):
        api.edit(POD, f"p{number}", "default", lambda obj: obj["spec"].update(nodeName="node1"))
    async with collector(api):
        await api.client().delete(DEPLOYMENT, "web", "default", propagation="Foreground")
        await until(lambda: all(each["metadata"].get("deletionTimestamp") for each in api.all(POD)))
        middle = await until(
            lambda: [each for each in api.all(REPLICA_SET) if each["metadata"].get("deletionTimestamp")]
        )
        assert middle[0]["metadata"]["finalizers"] == ["foregroundDeletion"]
        assert count(api) == (1, 1, 2)
        api.remove(POD, "p0", "default")
        await until(lambda: count(api) == (1, 1, 1))
        api.remove(POD, "p1", "default")
        await until(lambda: count(api) == (0, 0, 0))


async def test_orphans_stay_without_reference() -> None:
    api = FakeApi()
    await family(api)
    async with collector(api):
        await api.client().delete(DEPLOYMENT, "web", "default", propagation="Orphan")
        await until(lambda: count(api) == (0, 1, 2))
        assert references(api.all(REPLICA_SET)[0]) == ()
        assert all(references(each) for each in api.all(POD))


async def test_one_of_two_owners_goes() -> None:
    api = FakeApi()
    client = api.client()
    first = await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}})
    second = await client.create(CONFIG_MAP, {"metadata": {"name": "b", "namespace": "default"}})
    await client.create(POD, owned(pod("p"), first, second))
    async with collector(api):
        await client.delete(CONFIG_MAP, "a", "default")
        await until(lambda: [ref["name"] for ref in references(api.all(POD)[0])] == ["b"])
        await client.delete(CONFIG_MAP, "b", "default")
        await until(lambda: not api.all(POD))


async def test_a_new_owner_of_the_same_name_is_another_one() -> None:
    api = FakeApi()
    client = api.client()
    first = await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}})
    api.remove(CONFIG_MAP, "a", "default")
    await client.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}})
    async with collector(api):
        await client.create(POD, owned(pod("p"), first))
        await until(lambda: not api.all(POD))


async def test_an_owner_the_cache_has_not_seen_is_asked_for() -> None:
    api = FakeApi()
    client = api.client()
    async with collector(api):
        api.hold()
        owner = await client.create(CONFIG_MAP, {"metadata": {"name": "late", "namespace": "default"}})
        await client.create(POD, owned(pod("p"), owner))
        gone = {**owner, "metadata": {**owner["metadata"], "name": "other", "uid": "no-such-uid"}}
        await client.create(POD, owned(pod("q"), gone))
        api.release()
        await until(lambda: [name(each) for each in api.all(POD)] == ["p"])


async def test_owners_of_kinds_not_served_are_left_alone() -> None:
    api = FakeApi()
    client = api.client()
    strange = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t", "uid": "u"}}
    gone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "g", "uid": "v"}}
    async with collector(api):
        await client.create(POD, owned(pod("kept"), strange))
        await client.create(POD, owned(pod("swept"), gone))
        await until(lambda: len(api.all(POD)) == 1)
        assert name(api.all(POD)[0]) == "kept"
