"""Any client that lists and then watches ends with the server's state, whatever happens in between.

Clients of all kinds follow at once: in pages, with selectors, with bookmarks, with initial events sent by the watch.
Meanwhile objects are written, history is compacted, and the server is killed (its files are taken as they lie) and
started again. The state to end with is the model's, which the writer keeps by itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.registry_kinds import KINDS, WIDGET, named

from controlplane.apiserver.options import Query, list_options, watch_options
from controlplane.apiserver.registry import DeleteOptions, Registry, WriteOptions
from controlplane.apiserver.registry.requests import FrameType
from controlplane.errors import Expired, ServerTimeout, ServiceUnavailable
from controlplane.store.sqlite import SQLiteStore

SEED = int(os.environ.get("NETKIT_FUZZ_SEED", "1"))
STEPS = int(os.environ.get("NETKIT_FUZZ_ROUNDS", "12")) * 25
LIMIT = 30.0
State = dict[tuple[str, str], dict[str, Any]]


@dataclass
class Server:
    """A registry on a SQLite store that can be killed: nothing is closed before its files are copied."""

    directory: Path
    number: int = 0
    store: SQLiteStore = field(init=False)
    registry: Registry = field(init=False)

    async def start(self) -> None:
        self.store = SQLiteStore(self._path())
        self.registry = Registry(self.store, KINDS)
        await self.registry.start()

    async def kill(self) -> None:
        before, registry, store = self._path(), self.registry, self.store
        self.number += 1
        for suffix in ("", "-wal"):
            source = before.with_name(before.name + suffix)
            if source.exists():
                shutil.copy(source, self._path().with_name(self._path().name + suffix))
        await self.start()
        await registry.close()
        await store.close()

    def _path(self) -> Path:
        return self.directory / f"store-{self.number}.db"


@dataclass
class Follower:
    """A client as client-go's reflector is one. `keep` says which objects of the model it must end with."""

    server: Server
    random: Random
    namespace: str = ""
    selector: str = ""
    limit: int = 0
    bookmarks: bool = False
    initial: bool = False
    keep: Callable[[dict[str, Any]], bool] = lambda _: True
    state: State = field(default_factory=dict)
    revision: str = ""
    lists: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while True:
            try:
                if not self.revision and not self.initial:
                    await self._list()
                await self._watch()
            except (Expired, ServerTimeout):
                self.revision = ""
            except ServiceUnavailable:
                await asyncio.sleep(0)

    async def _list(self) -> None:
        found: State = {}
        token = ""
        while True:
            pairs = [("labelSelector", self.selector), ("limit", str(self.limit)), ("continue", token)]
            options = list_options(Query([pair for pair in pairs if pair[1]]), WIDGET)
            page = await self.server.registry.list(WIDGET, self.namespace, options)
            found.update({key(stored.object): stored.object for stored in page.items})
            token = page.continue_token
            if not token:
                break
            await asyncio.sleep(0)
        self.lists += 1
        self.state, self.revision = found, str(page.revision)
        self.changed.set()

    async def _watch(self) -> None:
        pairs = [("labelSelector", self.selector), ("resourceVersion", self.revision)]
        pairs.append(("allowWatchBookmarks", "true" if self.bookmarks or self.initial else ""))
        if self.initial and not self.revision:
            pairs += [("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")]
            self.state = {}
        watch = self.server.registry.watch(
            WIDGET, self.namespace, watch_options(Query([pair for pair in pairs if pair[1]]), WIDGET)
        )
        left = self.random.choice((3, 10, 40, 10**9))
        complete = bool(self.revision)
        try:
            async for frame in watch:
                complete = complete or frame.initial_events_end
                self._take(frame, complete)
                left -= 1
                if left <= 0 and complete:
                    return
        finally:
            await watch.aclose()

    def _take(self, frame: Any, complete: bool) -> None:
        if frame.type is not FrameType.BOOKMARK:
            obj = frame.stored.object
            if frame.type is FrameType.DELETED:
                self.state.pop(key(obj), None)
            else:
                assert self.keep(obj), "an object came that the selector does not select"
                self.state[key(obj)] = obj
        if complete:
            self.revision = str(frame.revision)
        self.changed.set()


def key(obj: dict[str, Any]) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def tier(obj: dict[str, Any]) -> str:
    return (obj["metadata"].get("labels") or {}).get("tier", "")


def followers(server: Server, random: Random) -> list[Follower]:
    made = [Follower(server, Random(random.random())) for _ in range(2)]
    made += [Follower(server, Random(random.random()), limit=limit, bookmarks=True) for limit in (1, 3)]
    made.append(Follower(server, Random(random.random()), initial=True))
    for initial in (False, True):
        made.append(
            Follower(
                server, Random(random.random()), "one", "tier=a", 2, True, initial,
                lambda obj: key(obj)[0] == "one" and tier(obj) == "a",
            )
        )  # fmt: skip
    made.append(
        Follower(
            server, Random(random.random()), selector="tier notin (a,b),!gone",
            keep=lambda obj: tier(obj) not in ("a", "b") and "gone" not in (obj["metadata"].get("labels") or {}),
        )
    )  # fmt: skip
    return made


async def write(server: Server, random: Random, model: State) -> None:
    """One write, and what it must have led to in the model."""
    namespace, name = random.choice(("one", "two")), f"w{random.randrange(12)}"
    labels = {"tier": random.choice("abc"), **({"gone": "x"} if random.random() < 0.2 else {})}
    there = model.get((namespace, name))
    if there is None:
        obj = named(name)
        obj["metadata"]["labels"] = labels
        made = await server.registry.create(WIDGET, namespace, obj, WriteOptions())
        model[namespace, name] = made.object
    elif random.random() < 0.3:
        await server.registry.delete(WIDGET, namespace, name, DeleteOptions())
        del model[namespace, name]
    else:
        changed = {**there, "metadata": {**there["metadata"], "labels": labels}}
        stored, _ = await server.registry.update(WIDGET, namespace, name, changed, WriteOptions())
        model[namespace, name] = stored.object


def waiting(client: Follower) -> asyncio.Task[bool]:
    return asyncio.create_task(client.changed.wait())


@pytest.mark.parametrize("part", range(3))
async def test_every_follower_ends_with_the_servers_state(part: int, tmp_path: Path) -> None:
    random = Random(SEED * 100 + part)
    server = Server(tmp_path)
    await server.start()
    clients = followers(server, random)
    tasks = [asyncio.create_task(client.run()) for client in clients]
    model: State = {}
    kills = compactions = 0
    for step in range(STEPS):
        await write(server, random, model)
        if random.random() < 0.03:
            await server.store.compact(await server.registry.revision())
            compactions += 1
        if step % 97 == 60:
            await server.kill()
            kills += 1
        if random.random() < 0.3:
            await asyncio.sleep(0)
    try:
        for client in clients:
            wanted = {at: obj for at, obj in model.items() if client.keep(obj)}
            async with asyncio.timeout(LIMIT):
                while client.state != wanted:
                    client.changed.clear()
                    ended, _ = await asyncio.wait(
                        [waiting(client), *tasks], return_when=asyncio.FIRST_COMPLETED
                    )
                    assert not ended & set(tasks), [task.exception() for task in ended & set(tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.registry.close()
        await server.store.close()
    assert kills >= 2
    assert compactions
    # Some were told that their place is gone, and came through it.
    assert sum(client.lists for client in clients) > len(clients)
