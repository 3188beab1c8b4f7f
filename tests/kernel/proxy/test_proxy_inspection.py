"""`netkit proxy explain`, `rules` and `diff` on a proxy that is no part of a cluster made here."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served
from support.proxy import endpoint, service, slice_of

from controlplane.client import kubeconfig
from controlplane.client.kubeconfig import Credentials
from netkit.kernel import netns
from netkit.kernel.iptables import IPTables
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run

pytestmark = pytest.mark.root

PATIENCE = 60.0
PROGRAM = (sys.executable, "-c", "from netkit.cli.script import run; run()", "proxy")
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "alone"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
}


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path / "ledger", "inspection")
    ns = netns.create(f"nkinspect{os.getpid()}", ledger)
    run(["ip", "link", "set", "lo", "up"], ns=ns, timeout=60, check=True)
    yield ns
    netns.delete(ns.name, ledger)
    ns.close()
    assert ns.name not in netns.names()


@pytest.fixture
async def access(api: Served, tmp_path: Path) -> Path:
    """A kubeconfig of a cluster with one node and one Service."""
    path = tmp_path / "kubeconfig"
    authority, admin = api.authority.certificate_path, api.admin
    credentials = Credentials(api.url, authority.read_text(), admin.cert.read_text(), admin.key.read_text())
    kubeconfig.write_context(path, "test", credentials)
    web = service("default/web", "10.96.7.7", [{"name": "p80", "port": 80}])
    slices = slice_of("default/web", endpoint("10.244.1.5", "alone"))
    await api.json("POST", "/api/v1/nodes", 201, json=NODE)
    await api.json("POST", "/api/v1/namespaces/default/services", 201, json=web)
    await api.json("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", 201, json=slices)
    return path


@asynccontextmanager
async def proxy(space: Namespace, access: Path, *more: str) -> AsyncIterator[None]:
    """kube-proxy at work, its rules written."""
    arguments = (
        "--netns", space.name, "--kubeconfig", str(access), "--hostname-override", "alone",
        "--cluster-cidr=10.244.0.0/16", "--healthz-bind-address=127.0.0.1:10256", *more,
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while b"all rules stand" not in (line := await process.stderr.readline()):
                assert line, "the proxy ended"
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask(space: Namespace, access: Path, command: str, *more: str) -> tuple[int, Any, str]:
    """Exit code, JSON answer and error text of a command on the proxy."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, command, "--kubeconfig", str(access), "--netns", space.name, "-o", "json", *more,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    return process.returncode or 0, json.loads(output) if output else None, errors.decode()


@pytest.mark.parametrize("mode", ["iptables", "userspace"])
async def test_a_running_proxy_says_itself_what_it_goes_by(
    api: Served, space: Namespace, access: Path, mode: str
) -> None:
    async with proxy(space, access, f"--proxy-mode={mode}"):
        code, found, _ = await ask(space, access, "explain", "web")
        assert code == 0, found
        (explanation,) = found["explanations"]
        assert (explanation["mode"], explanation["node"], explanation["missing"]) == (mode, "alone", 0)
        assert [item["target"] for item in explanation["endpoints"]] == ["10.244.1.5:80"]
        assert explanation["source"] == "10.244.255.254"
        assert all(step["standing"] for step in explanation["steps"])

        code, found, _ = await ask(space, access, "diff")
        assert (code, found["same"]) == (0, True)
        code, found, _ = await ask(space, access, "rules", "--service", "web")
        assert code == 0
        assert any("10.96.7.7/32" in entry for item in found for section in item["sections"]
                   for entry in section["entries"])  # fmt: skip


async def test_rules_that_a_stopped_proxy_left(api: Served, space: Namespace, access: Path) -> None:
    async with proxy(space, access):
        pass
    code, _, errors = await ask(space, access, "diff")
    assert code == 1
    assert "the proxy of alone does not say how it is configured" in errors
    configuration = access.with_name("proxy.yaml")
    configuration.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
        'mode: iptables\nclusterCIDR: "10.244.0.0/16"\n'
    )
    code, found, errors = await ask(space, access, "diff", "--config", str(configuration))
    assert code == 0, errors
    assert found["same"], found

    await IPTables(space).restore("*nat\n-F KUBE-SERVICES\nCOMMIT\n")
    code, found, _ = await ask(space, access, "diff", "--config", str(configuration))
    assert code == 1
    assert [item["section"] for item in found["nodes"][0]["sections"]] == ["nat KUBE-SERVICES"]
    # Without the pods' range a rule less is wanted, and so one is too many.
    code, found, _ = await ask(space, access, "diff", "--mode", "iptables")
    assert code == 1
    assert len(found["nodes"][0]["sections"]) > 1


async def test_a_mode_that_is_none(space: Namespace, access: Path) -> None:
    code, _, errors = await ask(space, access, "diff", "--mode", "ebpf")
    assert code == 1
    assert errors.startswith("netkit: --mode ebpf is not known")
