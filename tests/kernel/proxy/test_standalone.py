"""`netkit proxy` as a process of its own, against a real API server, its rules in a namespace made for the test."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
CLUSTER_IP = "10.96.7.7"
PROGRAM = (sys.executable, "-c", "from netkit.cli.script import run; run()", "proxy")
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "alone"},
    "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
}


@dataclass
class Running:
    """A process with the lines it has logged so far."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def logged(self, text: str) -> str:
        """The first line with `text`."""
        async with asyncio.timeout(PATIENCE):
            for line in self.lines:
                if text in line:
                    return line
            assert self.process.stderr is not None
            async for raw in self.process.stderr:
                self.lines.append(raw.decode())
                if text in self.lines[-1]:
                    return self.lines[-1]
        raise AssertionError(f"no line with {text!r} in\n{''.join(self.lines)}")

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            assert self.process.stderr is not None
            self.lines += [line.decode() async for line in self.process.stderr]
            return await self.process.wait()


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path / "ledger", "standalone")
    ns = netns.create(f"nkalone{os.getpid()}", ledger)
    run(["ip", "link", "set", "lo", "up"], ns=ns, timeout=60, check=True)
    yield ns
    netns.delete(ns.name, ledger)
    ns.close()
    assert ns.name not in netns.names()


@pytest.fixture
def access(api: Served, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    admin = Credentials(
        api.url,
        api.authority.certificate_path.read_text(),
        api.admin.cert.read_text(),
        api.admin.key.read_text(),
    )
    kubeconfig.write_context(path, "test", admin)
    return path


async def create(api: Served, path: str, obj: object) -> None:
    await api.json("POST", path, 201, json=obj)


async def add_service(api: Served) -> None:
    web = service("default/web", CLUSTER_IP, [{"name": "p80", "port": 80}])
    await create(api, "/api/v1/namespaces/default/services", web)
    slices = slice_of("default/web", endpoint("10.244.1.5", "alone"))
    await create(api, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slices)


@asynccontextmanager
async def proxy(*arguments: str | Path) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *map(str, arguments), stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def alone(space: Namespace, access: Path, *more: str) -> tuple[str | Path, ...]:
    return (
        "--netns", space.name, "--kubeconfig", access, "--hostname-override", "Alone",
        "--healthz-bind-address", "127.0.0.1:10256", *more,
    )  # fmt: skip


async def rules(space: Namespace) -> str:
    return await IPTables(space).save()


async def test_rules_appear_and_stay_after_the_signal(api: Served, space: Namespace, access: Path) -> None:
    await create(api, "/api/v1/nodes", NODE)
    await add_service(api)
    async with proxy(*alone(space, access, "--cluster-cidr=10.244.0.0/16")) as running:
        await running.logged("all rules stand")
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0, running.lines
    text = await rules(space)
    assert f"-A KUBE-SERVICES -d {CLUSTER_IP}/32 -p tcp" in text
    assert "--to-destination 10.244.1.5:80" in text


async def test_waits_for_its_node(api: Served, space: Namespace, access: Path) -> None:
    async with proxy(*alone(space, access)) as running:
        await running.logged("alone: no Node of this name")
        assert "KUBE-SERVICES" not in await rules(space)
        await create(api, "/api/v1/nodes", NODE)
        await running.logged("all rules stand")
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0


async def test_cleanup_leaves_what_is_not_ours(api: Served, space: Namespace, access: Path) -> None:
    iptables = IPTables(space)
    await iptables.ensure_chain("nat", "SOMEBODY")
    before = await iptables.save("nat")
    await create(api, "/api/v1/nodes", NODE)
    async with proxy(*alone(space, access)) as running:
        await running.logged("all rules stand")
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert "KUBE-SERVICES" in await iptables.save()
    async with proxy("--cleanup", "--netns", space.name) as running:
        assert await running.ended() == 0, running.lines
    assert "KUBE" not in await iptables.save()
    assert [line for line in before.splitlines() if line[0] in ":-" and "SOMEBODY" in line] == [
        line for line in (await iptables.save("nat")).splitlines() if "SOMEBODY" in line
    ]
    assert "KUBE" not in await IPTables(space, version=6).save()
    async with proxy("--cleanup", "--netns", space.name) as running:
        assert await running.ended() == 0, "cleaning up twice is fine"


async def nft_tables(space: Namespace) -> str:
    return run(["nft", "list", "tables"], ns=space, timeout=60, check=True).stdout.decode()


async def test_another_mode_takes_over_and_leaves_nothing(
    api: Served, space: Namespace, access: Path
) -> None:
    await create(api, "/api/v1/nodes", NODE)
    await add_service(api)
    for mode in ("iptables", "nftables", "iptables"):
        async with proxy(*alone(space, access, "--proxy-mode", mode)) as running:
            await running.logged("all rules stand")
            running.process.send_signal(signal.SIGTERM)
            # The signal may come before the old rules are gone: a start in the same mode has to finish that.
            assert await running.ended() == 0
        async with proxy(*alone(space, access, "--proxy-mode", mode)) as running:
            await running.logged("alone: only rules of mode")
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
        assert ("KUBE-SERVICES" in await rules(space)) == (mode == "iptables")
        assert ("table ip kube-proxy" in await nft_tables(space)) == (mode == "nftables")
    async with proxy("--cleanup", "--netns", space.name) as running:
        assert await running.ended() == 0
    assert "KUBE" not in await rules(space)
    assert await nft_tables(space) == ""


async def test_a_changed_file_ends_it(api: Served, space: Namespace, access: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    text = f"""
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {access}}}
hostnameOverride: alone
notAField: 1
"""
    file.write_text(text)
    await create(api, "/api/v1/nodes", NODE)
    async with proxy("--config", file, "--netns", space.name) as running:
        await running.logged('strict decoding error: unknown field "notAField"')
        await running.logged("all rules stand")
        file.touch()
        other = tmp_path / "config.new"
        other.write_text(text + "mode: iptables\n")
        other.replace(file)
        assert await running.ended() == 1
        assert "content of the proxy server's configuration file was updated" in running.lines[-1]
    assert "KUBE-SERVICES" in await rules(space)


async def test_init_only_prepares_and_writes_no_rule(api: Served, space: Namespace, access: Path) -> None:
    await create(api, "/api/v1/nodes", NODE)
    async with proxy(*alone(space, access, "--init-only")) as running:
        assert await running.ended() == 0, running.lines
    assert "KUBE" not in await rules(space)
    value = run(["sysctl", "-n", "net.ipv4.conf.all.route_localnet"], ns=space, timeout=60, check=True)
    assert value.stdout.strip() == b"1"


async def test_no_such_namespace(access: Path) -> None:
    async with proxy("--netns", "nk-is-not-there", "--kubeconfig", access) as running:
        assert await running.ended() == 1
    assert "nk-is-not-there" in running.lines[-1]


async def test_outside_of_a_pod_a_kubeconfig_is_needed() -> None:
    async with proxy("-v=0") as running:
        assert await running.ended() == 1
    assert "unable to load in-cluster configuration" in running.lines[-1]
