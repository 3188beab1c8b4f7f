"""How `api.py` measures: the servers' processes, the connections to them, and one case against its floor."""

from __future__ import annotations

import itertools
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.api_client import Connection, load, request
from bench.report import Figure

from controlplane.apiserver.pki import CertificateAuthority

USER = "bench-user"
"""Somebody who is no administrator; RBAC says what they may do."""


@dataclass
class Server:
    """A server's process."""

    process: subprocess.Popen[str]
    port: int

    def cpu(self) -> float:
        """Seconds of processor time it has used: its clock, by the kernel's numbering of clocks."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory(self) -> float:
        """Megabytes, PSS."""
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no Pss")


@contextmanager
def server(name: str, directory: Path) -> Iterator[Server]:
    program = Path(__file__).with_name("api_servers.py")
    process = subprocess.Popen(
        [sys.executable, str(program), name, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))
    finally:
        process.communicate(timeout=20)


@contextmanager
def fresh_server() -> Iterator[tuple[Path, Server]]:
    """A control plane over an empty store, and its directory."""
    temporary = tempfile.TemporaryDirectory(prefix="bench-api-")
    with temporary as name, server("control-plane", Path(name)) as ours:
        yield Path(name), ours


def client_tls(directory: Path, stem: str = "admin") -> ssl.SSLContext:
    """With the client certificate `stem`; none for an empty one."""
    pki = directory / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.crt")
    if stem:
        context.load_cert_chain(pki / f"{stem}.crt", pki / f"{stem}.key")
    return context


@dataclass
class Case:
    """One kind of request: `ours` and `bare` give the requests of one run to either server.

    `identity` is the client certificate that is used; see `Bench.identities`.
    """

    name: str
    unit: str
    clients: int
    count: int
    ours: Callable[[str], Iterator[bytes]]
    bare: bytes
    identity: str = "admin"
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    bare_rates: list[float] = field(default_factory=list)
    bare_costs: list[float] = field(default_factory=list)

    def figures(self) -> Iterator[Figure]:
        rate, cost = statistics.median(self.bare_rates), statistics.median(self.bare_costs)
        yield Figure(self.name, self.unit, tuple(self.rates), rate, "bare aiohttp")
        yield Figure("  CPU of one", "us", tuple(self.costs), cost, "bare aiohttp")


class Bench:
    """Both servers, and the connections to them."""

    def __init__(self, directory: Path, ours: Server) -> None:
        self.directory = directory
        self.ours = ours
        authority = CertificateAuthority.load_or_create(directory / "pki")
        authority.ensure(USER, USER)
        self.identities = {stem: client_tls(directory, stem) for stem in ("admin", USER, "")}
        self.tls = self.identities["admin"]
        self._serial = itertools.count()

    async def namespace(self, connection: Connection) -> str:
        """A new one in which pods can be made."""
        name = f"bench-{next(self._serial)}"
        metadata = {"metadata": {"name": name}}
        account = {"metadata": {"name": "default"}}
        await connection.ask(request("POST", "/api/v1/namespaces", json.dumps(metadata).encode()))
        path = f"/api/v1/namespaces/{name}/serviceaccounts"
        await connection.ask(request("POST", path, json.dumps(account).encode()))
        return name

    async def post(self, connection: Connection, path: str, obj: dict[str, Any]) -> dict[str, Any]:
        body = await connection.ask(request("POST", path, json.dumps(obj).encode()))
        made: dict[str, Any] = json.loads(body)
        return made

    async def measure(self, target: Server, case: Case, requests: Iterator[bytes]) -> tuple[float, float]:
        """Requests per second, and microseconds of the server's processor time for one."""
        tls = self.identities[case.identity]
        connections = [await Connection.open(target.port, tls) for _ in range(case.clients)]
        before = target.cpu()
        seconds = await load(connections, requests)
        used = target.cpu() - before
        for connection in connections:
            connection.close()
        return case.count / seconds, used / case.count * 1e6

    async def in_turns(
        self, bare: Server, cases: Sequence[Case], namespace: Callable[[], str] | None = None
    ) -> None:
        """One run of all cases, of each first the floor. Each gets a new namespace, or the one that is told."""
        connection = await Connection.open(self.ours.port, self.tls)
        for case in cases:
            rate, cost = await self.measure(bare, case, itertools.repeat(case.bare, case.count))
            case.bare_rates.append(rate)
            case.bare_costs.append(cost)
            place = namespace() if namespace is not None else await self.namespace(connection)
            rate, cost = await self.measure(self.ours, case, case.ours(place))
            case.rates.append(rate)
            case.costs.append(cost)
        connection.close()
