"""`netkit proxy` beside kube-proxy's words: from the API server into a namespace's kernel, then as e2e tests treat it.

Addresses and ports of upstream's objects are moved into the ranges of the API server, in objects and rules alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served
from support.proxy import Object
from unit.proxy.upstream import iptables_tables, nftables_tables
from unit.proxy.upstream.world import NODE, NODE_IP

from controlplane.client import kubeconfig
from controlplane.client.kubeconfig import Credentials
from netkit.kernel import netns, nfacct
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.iptables.rules import COUNTERS

pytestmark = pytest.mark.root

PATIENCE = 60.0
PROGRAM = (sys.executable, "-c", "from netkit.cli.script import run; run()", "proxy")
MOVED = {"172.30.0": "10.96.0", "3001": "30001", "3002": "30002", "3003": "30003"}


def moved(text: str) -> str:
    return re.sub(r"172\.30\.0|\b300[123]\b", lambda found: MOVED[found[0]], text)


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    """A namespace that has the node's address and goes with the test."""
    ledger = Ledger(tmp_path / "ledger", "upstreamalone")
    ns = netns.create(f"nkupsalone{os.getpid()}", ledger)
    run(["ip", "link", "set", "lo", "up"], ns=ns, timeout=60, check=True)
    run(["ip", "address", "add", f"{NODE_IP}/24", "dev", "lo"], ns=ns, timeout=60, check=True)
    yield ns
    netns.delete(ns.name, ledger)
    ns.close()


@pytest.fixture
async def access(api: Served, tmp_path: Path) -> Path:
    """A kubeconfig for an API server that has upstream's node and objects."""
    ready = {"type": "Ready", "status": "True"}
    addresses = [{"type": "InternalIP", "address": NODE_IP}]
    await put(api, "/api/v1/nodes", {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "status": {"addresses": addresses, "conditions": [ready]},
    })  # fmt: skip
    await put(api, "/apis/networking.k8s.io/v1beta1/servicecidrs", {
        "apiVersion": "networking.k8s.io/v1beta1", "kind": "ServiceCIDR", "metadata": {"name": "test"},
        "spec": {"cidrs": ["10.96.0.0/16"]},
    })  # fmt: skip
    await api.json("DELETE", "/api/v1/namespaces/default/services/kubernetes")
    for item in json.loads(moved(json.dumps(nftables_tables.OVERALL_OBJECTS))):
        await put_object(api, item)
    path = tmp_path / "kubeconfig"
    certificate = api.authority.certificate_path.read_text()
    admin = Credentials(api.url, certificate, api.admin.cert.read_text(), api.admin.key.read_text())
    kubeconfig.write_context(path, "test", admin)
    return path


async def put(api: Served, path: str, item: Object) -> Any:
    return await api.json("POST", path, 201, json=item)


async def put_object(api: Served, item: Object) -> None:
    namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
    if item["kind"] != "Service":
        await put(api, f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", item)
        return
    await put(
        api, "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    spec = item["spec"]
    if spec.get("externalTrafficPolicy") != "Local":
        spec.pop("healthCheckNodePort", None)
    if spec["type"] == "NodePort" and not any("nodePort" in port for port in spec["ports"]):
        # Else it would be given a NodePort.
        spec["type"] = "ClusterIP"
    path = f"/api/v1/namespaces/{namespace}/services"
    made = await put(api, path, item)
    made["status"] = item["status"]
    await api.json("PUT", f"{path}/{name}/status", json=made)


@asynccontextmanager
async def proxy(space: Namespace, access: Path, *more: str) -> AsyncIterator[None]:
    """The program, from when all its rules stand."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "--netns", space.name, "--kubeconfig", str(access), "--hostname-override", NODE,
        "--cluster-cidr", "10.0.0.0/8,fd00:10::/64", "--bind-address", "0.0.0.0", *more,
        stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            lines = []
            async for line in process.stderr:
                lines.append(line.decode())
                if "all rules stand" in lines[-1]:
                    break
            assert "all rules stand" in lines[-1], lines
        yield
    finally:
        process.kill()
        await process.wait()


async def soon(ask: Callable[[], Awaitable[str]], good: Callable[[str], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if good(await ask()):
                return
            await asyncio.sleep(0.2)


async def listed(space: Namespace) -> str:
    return nft(space, "list", "table", "ip", "kube-proxy")


def nft(space: Namespace, *words: str, script: str = "") -> str:
    done = run(["nft", *words], ns=space, timeout=60, check=True, input=script.encode())
    return done.stdout.decode()


def blocks(listing: str) -> dict[str, str]:
    found = re.findall(r"^\t((?:chain|set|map) \S+) \{\n(.*?)^\t\}\n", listing, re.DOTALL | re.MULTILINE)
    assert found
    return dict(found)


async def test_the_nftables_mode(api: Served, space: Namespace, access: Path) -> None:
    table = nftables_tables.read(moved(nftables_tables.FRAME), moved(nftables_tables.OVERALL))
    nft(space, "-f", "-", script=nftables_tables.script(table))
    theirs = await listed(space)
    nft(space, "delete", "table", "ip", "kube-proxy")
    async with proxy(space, access, "--proxy-mode", "nftables"):
        # The ranges of Services may come after the first rules.
        await soon(lambda: listed(space), lambda text: "10.96.0.0/16" in text)
        ours = await listed(space)
    assert blocks(ours) == blocks(theirs)


def chains(saved: str) -> dict[str, list[str]]:
    """kube-proxy's chains of iptables-save with their rules, but for the canaries."""
    found: dict[str, list[str]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":KUBE-") and "CANARY" not in line:
            found[f"{table} {line[1:].split()[0]}"] = []
        elif line.startswith("-A KUBE-"):
            found[f"{table} {line.split()[1]}"].append(line)
    return found


async def expected(iptables: IPTables) -> dict[str, list[str]]:
    """What iptables makes of kube-proxy's words. Its tables are empty afterwards."""
    frame = iptables_tables.FRAME.replace("-j MASQUERADE", "-j MASQUERADE --random-fully")
    wanted = iptables_tables.read(moved(frame), moved(iptables_tables.OVERALL))
    if all(nfacct.ensure(iptables.ns, name) for name in COUNTERS):
        drop = (iptables_tables.DROP_INVALID, iptables_tables.DROP_INVALID_COUNTED)
        wanted.update(iptables_tables.read(iptables_tables.FORWARD.replace(*drop)))
    else:
        counted = iptables_tables.NO_COUNTERS
        wanted = {
            name: tuple(rule for rule in rules if not counted.match(rule)) for name, rules in wanted.items()
        }
    await iptables.restore(iptables_tables.script(wanted))
    found = chains(await iptables.save())
    await iptables.restore("*filter\nCOMMIT\n*nat\nCOMMIT\n", noflush=False)
    return found


async def test_the_iptables_mode_and_its_rules_come_back(api: Served, space: Namespace, access: Path) -> None:
    iptables = IPTables(space)
    theirs = await expected(iptables)
    async with proxy(space, access, "--iptables-sync-period", "1s"):
        saved = await iptables.save()
        assert chains(saved) == theirs
        delete_every_kube_chain(space, saved)
        await soon(iptables.save, lambda text: chains(text) == theirs)
        jumps = re.findall(r"^-A [A-Z]+ .*-j KUBE-\S+$", await iptables.save(), re.MULTILINE)
        assert sorted(jumps) == sorted(re.findall(r"^-A [A-Z]+ .*-j KUBE-\S+$", saved, re.MULTILINE))


def delete_every_kube_chain(space: Namespace, saved: str) -> None:
    """Rule by rule and chain by chain, as upstream's e2e test does it."""
    rules, ends, table = [], [], ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A") and not line.startswith("-A KUBE-") and "-j KUBE-" in line:
            rules.append(f"iptables -w 5 -t {table} -D {line[3:]} || true")
        elif line.startswith(":KUBE-"):
            chain = line[1:].split()[0]
            rules.append(f"iptables -w 5 -t {table} -F {chain} || true")
            ends.append(f"iptables -w 5 -t {table} -X {chain} || true")
    run(["sh", "-c", "\n".join(rules + ends)], ns=space, timeout=60, check=True)
