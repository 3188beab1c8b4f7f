"""What many objects cost `api.py`: memory, long lists, and the first list of everything after a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.api_bench import Bench, Case, Server, server
from bench.api_client import Connection, load, request
from bench.api_objects import TABLE, TYPE, pod, pods_of, running, same
from bench.report import Figure

from controlplane.store.protocol import Put
from controlplane.store.sqlite import SQLiteStore

_CLIENTS = 32
_WATCHERS = 100
_CONFIG_MAPS = 10_000
_STORED_CONFIG_MAPS = 40_000
_STORED_PODS = 10_000
_NAMESPACE = "stored"
_LISTS = 6


async def memory(directory: Path, ours: Server) -> list[Figure]:
    """Of a server that has done nothing before: growth by objects, and by watchers that come and go."""
    bench = Bench(directory, ours)
    connection = await Connection.open(ours.port, bench.tls)
    data = {"data": {"settings.yaml": "log: info\nlisten: 0.0.0.0:8080\n" * 24}}
    path = f"/api/v1/namespaces/{await bench.namespace(connection)}/configmaps"

    def config_maps() -> Iterator[bytes]:
        for number in range(_CONFIG_MAPS):
            yield request(
                "POST", path, json.dumps({"metadata": {"name": f"settings-{number}"}, **data}).encode()
            )

    async def come_and_go() -> None:
        watchers = [await Connection.open(ours.port, bench.tls, lambda _: None) for _ in range(_WATCHERS)]
        for watcher in watchers:
            await watcher.ask(request("GET", "/api/v1/services?watch=true&resourceVersion=0"))
        for watcher in watchers:
            watcher.close()
        # A connection that comes behind them is served when the server has noticed that they are gone.
        await (await Connection.open(ours.port, bench.tls)).ask(request("GET", "/readyz"))

    empty = ours.memory()
    writers = [await Connection.open(ours.port, bench.tls) for _ in range(_CLIENTS)]
    seconds = await load(writers, config_maps())
    for writer in writers:
        writer.close()
    full = ours.memory()
    size = len(await connection.ask(request("GET", f"{path}/settings-0")))
    await come_and_go()
    once = ours.memory()
    for _ in range(3):
        await come_and_go()
    return [
        Figure(f"create ConfigMap of {size} B, {_CLIENTS} clients", "/s", (_CONFIG_MAPS / seconds,)),
        Figure("memory (PSS) at rest", "MB", (empty,)),
        Figure(f"  more with {_CONFIG_MAPS} ConfigMaps of {size} B", "MB", (full - empty,)),
        Figure(f"  more after {_WATCHERS} watchers came and went", "MB", (once - full,)),
        Figure(f"  more after {3 * _WATCHERS} others did", "MB", (ours.memory() - once,), aim="0"),
    ]


async def templates(directory: Path, ours: Server) -> dict[str, dict[str, Any]]:
    """A running pod and a ConfigMap as the server keeps them; makes their namespace."""
    bench = Bench(directory, ours)
    connection = await Connection.open(ours.port, bench.tls)
    await bench.post(connection, "/api/v1/namespaces", {"metadata": {"name": _NAMESPACE}})
    accounts = f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts"
    await bench.post(connection, accounts, {"metadata": {"name": "default"}})
    made = await bench.post(connection, pods_of(_NAMESPACE), json.loads(pod("x", "node-1")))
    status = request("PUT", f"{pods_of(_NAMESPACE)}/x/status", running({**TYPE, **made}))
    data = {"data": {"settings.yaml": "log: info\nlisten: 0.0.0.0:8080\n" * 24}}
    path = f"/api/v1/namespaces/{_NAMESPACE}/configmaps"
    settings = await bench.post(connection, path, {"metadata": {"name": "x"}, **data})
    found = {"pods": json.loads(await connection.ask(status)), "configmaps": settings}
    connection.close()
    return found


async def fill(directory: Path, kept: dict[str, dict[str, Any]]) -> None:
    """Copies of the templates, written past the server, which must not run."""
    store = SQLiteStore(directory / "data" / "store.db")
    try:
        for plural, count in (("pods", _STORED_PODS), ("configmaps", _STORED_CONFIG_MAPS)):
            obj = kept[plural]
            for first in range(0, count, 1000):
                puts = []
                for number in range(first, first + 1000):
                    name, uid = f"stored-{number:05}", f"00000000-0000-4000-8000-{number:012}"
                    metadata = {**obj["metadata"], "name": name, "uid": uid}
                    value = json.dumps({**obj, "metadata": metadata}, separators=(",", ":"))
                    puts.append(Put(f"/registry/{plural}/{_NAMESPACE}/{name}", value.encode(), 0))
                await store.commit(puts)
    finally:
        await store.close()


async def restarted(directory: Path, kept: dict[str, dict[str, Any]], runs: int) -> list[Figure]:
    """A server is started over all that: until it is ready, and until everything is listed and watched."""
    await fill(directory, kept)
    ready: list[float] = []
    followed: list[float] = []
    sizes: list[float] = []
    lists: list[Figure] = []
    for run in range(runs):
        begin = time.perf_counter()
        with server("control-plane", directory) as ours:
            ready.append(time.perf_counter() - begin)
            bench = Bench(directory, ours)
            connection = await Connection.open(ours.port, bench.tls)
            empty = ours.memory()
            for plural in ("pods", "configmaps"):
                body = await connection.ask(request("GET", f"/api/v1/{plural}"))
                version = json.loads(body[: body.index(b"items")].rstrip(b'",') + b"}")["metadata"]
                watcher = await Connection.open(ours.port, bench.tls, lambda _: None)
                query = f"watch=true&resourceVersion={version['resourceVersion']}"
                await watcher.ask(request("GET", f"/api/v1/{plural}?{query}"))
            followed.append(time.perf_counter() - begin)
            del body
            sizes.append((ours.memory() - empty) / (_STORED_PODS + _STORED_CONFIG_MAPS) * 10_000)
            if run == runs - 1:
                lists = await long_lists(bench, connection, runs)
            connection.close()
    count = _STORED_PODS + _STORED_CONFIG_MAPS
    return [
        Figure(f"restart with {count} objects until ready", "s", tuple(ready)),
        Figure("  until pods and ConfigMaps are listed and watched", "s", tuple(followed)),
        Figure("  memory (PSS) of 10,000 of them", "MB", tuple(sizes)),
        *lists,
    ]


async def long_lists(bench: Bench, connection: Connection, runs: int) -> list[Figure]:
    every = request("GET", pods_of(_NAMESPACE))
    table = request("GET", pods_of(_NAMESPACE), accept=TABLE)
    folder = bench.directory / "answers"
    folder.mkdir(exist_ok=True)
    for name, asked in (("list", every), ("table", table)):
        (folder / name).write_bytes(await connection.ask(asked))
    measured = [
        Case(f"LIST {_STORED_PODS} pods", "/s", 2, _LISTS, same(every, _LISTS), request("GET", "/list")),
        Case(f"Table of {_STORED_PODS} pods", "/s", 2, _LISTS, same(table, _LISTS), request("GET", "/table")),
    ]
    with server("floor", bench.directory) as bare:
        for _ in range(runs):
            await bench.in_turns(bare, measured, lambda: _NAMESPACE)
    return [figure for case in measured for figure in case.figures()]
