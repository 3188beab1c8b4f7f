"""Benchmark of the API server: reads, durable writes, lists, watches with many followers, memory, restarts.

    .venv/bin/python tests/bench/api.py [--runs N] [--only requests|watches|memory|restart]

Everything goes over TLS and keep-alive between two processes on loopback; no root. Each case is compared with its
floor, taken in turns: aiohttp's bare server in a process of its own that answers the same bytes (`api_servers.py`).
`CPU` rows are what the server's process used for one request, which other load on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import api_scale
from bench.api_bench import USER, Bench, Case, fresh_server, server
from bench.api_client import Connection, load, request
from bench.api_fanout import watches
from bench.api_objects import (
    TABLE,
    TYPE,
    applies,
    creates,
    patches,
    pod,
    pods_of,
    running,
    same,
    settings,
    statuses,
    updates,
)
from bench.report import Figure, report

CLIENTS = 32
LISTERS = 4
WATCHERS = (100, 1000)
LISTED = 1000
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces"


async def subjects(bench: Bench, connection: Connection, namespace: str) -> str:
    """Lets USER and the ServiceAccount `default` read the namespace's pods; returns a token of the latter."""
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    await bench.post(
        connection, f"{RBAC}/{namespace}/roles", {"metadata": {"name": "reader"}, "rules": rules}
    )
    binding = {
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [
            {"kind": "User", "name": USER, "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "ServiceAccount", "name": "default", "namespace": namespace},
        ],
    }
    await bench.post(connection, f"{RBAC}/{namespace}/rolebindings", binding)
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token"
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await bench.post(connection, path, asked)
    return str(answer["status"]["token"])


async def ruled_namespaces(bench: Bench, connection: Connection) -> dict[str, str]:
    """Namespaces whose ConfigMaps a quota counts, and a policy judges."""
    quota, policy = await bench.namespace(connection), await bench.namespace(connection)
    hard = {"metadata": {"name": "q"}, "spec": {"hard": {"count/configmaps": "100000"}}}
    await bench.post(connection, f"/api/v1/namespaces/{quota}/resourcequotas", hard)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "size(object.data) < 100 && !object.metadata.name.startsWith('x')"}],
    }
    root = "/apis/admissionregistration.k8s.io/v1"
    path = f"{root}/validatingadmissionpolicies"
    await bench.post(connection, path, {"metadata": {"name": "small"}, "spec": spec})
    only = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": policy}}}
    bound = {"policyName": "small", "validationActions": ["Deny"], "matchResources": only}
    path = f"{root}/validatingadmissionpolicybindings"
    await bench.post(connection, path, {"metadata": {"name": "small"}, "spec": bound})
    return {"quota": quota, "policy": policy}


async def cases(bench: Bench, connection: Connection) -> list[Case]:
    """Fills a namespace to read from, and leaves the answers the floor is to give."""
    namespace = await bench.namespace(connection)
    writers = [await Connection.open(bench.ours.port, bench.tls) for _ in range(CLIENTS)]
    names = [f"frontend-5d4f-{number:05}" for number in range(LISTED)]
    await load(writers, (request("POST", pods_of(namespace), pod(name, "node-1")) for name in names))
    listed = await connection.ask(request("GET", pods_of(namespace)))
    made = zip(names, json.loads(listed)["items"], strict=True)
    await load(
        writers,
        (
            request("PUT", f"{pods_of(namespace)}/{name}/status", running({**TYPE, **obj}))
            for name, obj in made
        ),
    )
    for writer in writers:
        writer.close()
    one = request("GET", f"{pods_of(namespace)}/frontend-5d4f-00000")
    every = request("GET", pods_of(namespace))
    table = request("GET", pods_of(namespace), accept=TABLE)
    listed = await connection.ask(every)
    items = json.loads(listed)["items"]
    stored = await connection.ask(one)
    answers = {
        "get": stored,
        "create": stored,
        "list": listed,
        "table": await connection.ask(table),
    }
    folder = bench.directory / "answers"
    folder.mkdir()
    for name, body in answers.items():
        (folder / name).write_bytes(body)
    token = await subjects(bench, connection, namespace)
    ruled = await ruled_namespaces(bench, connection)
    by_token = request("GET", f"{pods_of(namespace)}/frontend-5d4f-00000", token=token)
    bare_write = request("POST", "/create", pod("frontend-5d4f-00000"))
    size = len(stored)
    many, few = f"{CLIENTS} clients", f"{LISTERS} clients"
    return [
        Case(f"GET pod of {size} B, {many}", "/s", CLIENTS, 3000, same(one, 3000), request("GET", "/get")),
        Case("  as a user with a Role", "/s", CLIENTS, 3000, same(one, 3000), request("GET", "/get"), USER),
        Case(
            "  by a ServiceAccount's token",
            "/s",
            CLIENTS,
            3000,
            same(by_token, 3000),
            request("GET", "/get"),
            "",
        ),
        Case("create pod, 1 client", "/s", 1, 300, creates(300), bare_write),
        Case(f"create pod, {many}", "/s", CLIENTS, 800, creates(800), bare_write),
        Case(f"create ConfigMap, {many}", "/s", CLIENTS, 800, settings(800), bare_write),
        Case("  with a ResourceQuota", "/s", CLIENTS, 800, settings(800, ruled["quota"]), bare_write),
        Case(
            "  with a ValidatingAdmissionPolicy",
            "/s",
            CLIENTS,
            800,
            settings(800, ruled["policy"]),
            bare_write,
        ),
        Case(f"update pod, {many}", "/s", CLIENTS, 800, updates(items, 800), bare_write),
        Case(f"status of pod, {many}", "/s", CLIENTS, 800, statuses(items, 800), bare_write),
        Case(f"merge patch of pod, {many}", "/s", CLIENTS, 800, patches(names, namespace, 800), bare_write),
        Case(f"server-side apply, {many}", "/s", CLIENTS, 800, applies(800, True), bare_write),
        Case(f"  of nothing new, {many}", "/s", CLIENTS, 800, applies(800, False), bare_write),
        Case(f"LIST {LISTED} pods, {few}", "/s", LISTERS, 80, same(every, 80), request("GET", "/list")),
        Case(f"Table of {LISTED} pods, {few}", "/s", LISTERS, 60, same(table, 60), request("GET", "/table")),
    ]


def commits(directory: Path, value: bytes, count: int = 200) -> float:
    """Durable transactions per second of one such value each, by SQLite alone."""
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        database = sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE records (revision INTEGER PRIMARY KEY, key TEXT, value BLOB)")
        begin = time.perf_counter()
        for number in range(count):
            database.execute(
                "INSERT INTO records VALUES (?, ?, ?)", (number, f"/registry/pods/{number}", value)
            )
        seconds = time.perf_counter() - begin
        database.close()
        return count / seconds


async def requests(runs: int) -> list[Figure]:
    """The cases of one server, each in turn with the floor."""
    with fresh_server() as (directory, ours):
        bench = Bench(directory, ours)
        connection = await Connection.open(ours.port, bench.tls)
        measured = await cases(bench, connection)
        durable = [commits(directory, (directory / "answers" / "get").read_bytes()) for _ in range(runs)]
        with server("floor", directory) as bare:
            for _ in range(runs):
                await bench.in_turns(bare, measured)
        connection.close()
    figures = [figure for case in measured for figure in case.figures()]
    figures.append(Figure("SQLite alone: durable commits of such a pod", "/s", tuple(durable)))
    return figures


async def fan_outs(runs: int) -> list[Figure]:
    figures: list[Figure] = []
    with fresh_server() as (directory, ours):
        bench = Bench(directory, ours)
        connection = await Connection.open(ours.port, bench.tls)
        path = pods_of(await bench.namespace(connection))
        stored = await connection.ask(request("POST", path, pod("frontend-5d4f-00000")))
        folder = directory / "answers"
        folder.mkdir()
        (folder / "create").write_bytes(stored)
        (folder / "event").write_bytes(b'{"type":"ADDED","object":' + stored + b"}\n")
        with server("floor", directory) as bare:
            for count in WATCHERS:
                figures += await watches(bench, bare, connection, count, runs)
        connection.close()
    return figures


async def memory(runs: int) -> list[Figure]:
    with fresh_server() as (directory, ours):
        return await api_scale.memory(directory, ours)


async def restarts(runs: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        directory = Path(name)
        with server("control-plane", directory) as ours:
            kept = await api_scale.templates(directory, ours)
        return await api_scale.restarted(directory, kept, runs)


PARTS = {"requests": requests, "watches": fan_outs, "memory": memory, "restart": restarts}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=list(PARTS), help="one part; each is saved as a result of its own")
    arguments = parser.parse_args()
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            report(f"api_{name}", asyncio.run(part(arguments.runs)))


if __name__ == "__main__":
    main()
