"""The informer's promises: no change is lost, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.client_fake import FakeApi
from support.client_wait import running, until

from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.resources.catalog import CONFIG_MAP, POD


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "data": data}


async def test_lists_follows_and_tells_every_change() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(CONFIG_MAP, config_map("first"))
    informer = Informer(client, CONFIG_MAP)
    seen: list[tuple[Any, Any]] = []
    informer.on_change(lambda old, new: seen.append((old and old["data"], new and new["data"])))
    async with running(informer.run()):
        await informer.synced()
        await client.create(CONFIG_MAP, config_map("second", a="1"))
        await client.patch(CONFIG_MAP, "second", {"data": {"a": "2"}}, "default")
        await client.delete(CONFIG_MAP, "second", "default")
        await until(lambda: len(seen) == 4)
    assert seen == [(None, {}), (None, {"a": "1"}), ({"a": "1"}, {"a": "2"}), ({"a": "2"}, None)]
    assert [obj["metadata"]["name"] for obj in informer.items()] == ["first"]
    assert informer.revision == api.revision


async def test_broken_connection_goes_on_from_the_last_revision() -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, CONFIG_MAP)
    async with running(informer.run()):
        await informer.synced()
        await client.create(CONFIG_MAP, config_map("a"))
        await until(lambda: len(informer) == 1)
        api.down = True
        api.break_watches()
        await until(lambda: api.watches == 0)
        api.down = False
        await client.create(CONFIG_MAP, config_map("b"))
        await until(lambda: len(informer) == 2)
    lists = [call for call in api.calls if call[0] == "GET"]
    assert len(lists) == 1, "a watch that can go on must not list again"


async def test_expired_revision_lists_again_and_tells_only_differences() -> None:
    api = FakeApi()
    client = api.client()
    for name in ("kept", "changed", "removed", "replaced"):
        await client.create(CONFIG_MAP, config_map(name))
    informer = Informer(client, CONFIG_MAP)
    seen: list[tuple[str, str]] = []

    def note(old: Object | None, new: Object | None) -> None:
        what = "change" if old and new else "add" if new else "delete"
        seen.append((what, ((new or old) or {})["metadata"]["name"]))

    async with running(informer.run()):
        await informer.synced()
        informer.on_change(note)
        seen.clear()
        await until(lambda: api.watches == 1)
        api.down = True
        api.break_watches()
        await until(lambda: api.watches == 0)
        api.edit(CONFIG_MAP, "changed", "default", lambda obj: obj["data"].update(x="y"))
        api.remove(CONFIG_MAP, "removed", "default")
        api.remove(CONFIG_MAP, "replaced", "default")
        api.down = False
        await client.create(CONFIG_MAP, config_map("replaced"))
        api.compact()
        await until(lambda: len(seen) == 4)
    assert seen == [("delete", "removed"), ("change", "changed"), ("delete", "replaced"), ("add", "replaced")]


async def test_indexes_follow_changes() -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, POD)
    informer.index_by("node", lambda pod: [pod["spec"].get("nodeName", "")])
    async with running(informer.run()):
        await client.create(POD, {"metadata": {"name": "p", "namespace": "default"}, "spec": {}})
        await until(lambda: informer.lookup("node", ""))
        binding = {"target": {"name": "node1"}}
        await client.create(POD, binding, "default", "p", "binding")
        found = await until(lambda: informer.lookup("node", "node1"))
        assert found[0]["metadata"]["name"] == "p"
        assert informer.lookup("node", "") == []
        api.remove(POD, "p", "default")
        await until(lambda: not informer.lookup("node", "node1"))


async def test_selectors_narrow_the_cache() -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, CONFIG_MAP, label_selector="app=a")
    async with running(informer.run()):
        await informer.synced()
        await client.create(CONFIG_MAP, config_map("b"))
        await client.create(CONFIG_MAP, config_map("a"))
        await until(lambda: len(informer) == 1)
        assert informer.get("default", "a") is not None
        await client.patch(CONFIG_MAP, "a", {"metadata": {"labels": {"app": "x"}}}, "default")
        await until(lambda: len(informer) == 0)


async def test_faulty_handler_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    client = api.client()
    informer = Informer(client, CONFIG_MAP)
    seen = []

    def faulty(old: Object | None, new: Object | None) -> None:
        raise RuntimeError("broken handler")

    informer.on_change(faulty)
    informer.on_change(lambda old, new: seen.append(new))
    async with running(informer.run()):
        await client.create(CONFIG_MAP, config_map("a"))
        await until(lambda: len(seen) == 1)
    assert "broken handler" in caplog.text


async def test_late_handler_gets_what_is_there() -> None:
    api = FakeApi()
    client = api.client()
    await client.create(CONFIG_MAP, config_map("a"))
    informer = Informer(client, CONFIG_MAP)
    async with running(informer.run()):
        await asyncio.wait_for(informer.synced(), 5)
        seen: list[Object | None] = []
        informer.on_change(lambda old, new: seen.append(new))
        assert len(seen) == 1


async def test_random_faults_lose_nothing() -> None:
    import random

    chance = random.Random(7)
    api = FakeApi()
    client = api.client()
    informer = Informer(client, CONFIG_MAP)
    model: dict[str, str] = {}

    def follow(old: Object | None, new: Object | None) -> None:
        assert (old is None) == ((new or old or {})["metadata"]["name"] not in model)
        if new is None:
            assert old is not None
            del model[old["metadata"]["name"]]
        else:
            model[new["metadata"]["name"]] = new["data"].get("x", "")

    informer.on_change(follow)
    async with running(informer.run()):
        for step in range(300):
            name = f"n{chance.randrange(8)}"
            if api.get(CONFIG_MAP, name, "default") is None:
                await client.create(CONFIG_MAP, config_map(name))
            elif chance.random() < 0.4:
                api.remove(CONFIG_MAP, name, "default")
            else:
                api.edit(CONFIG_MAP, name, "default", lambda obj, step=step: obj["data"].update(x=str(step)))
            if chance.random() < 0.05:
                api.break_watches()
            if chance.random() < 0.03:
                api.compact()
                api.break_watches()
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        await until(lambda: informer.revision == api.revision)
    assert model == {obj["metadata"]["name"]: obj["data"].get("x", "") for obj in api.all(CONFIG_MAP)}
