"""One node for tests: an API server, a node namespace, a small pod network, a runtime process, an agent in
the test.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from support.apiserver import Served, cluster
from support.node.runtime_process import RuntimeProcess, runtime_process

from controlplane.client.client import Client
from controlplane.client.https import HttpsTransport
from controlplane.client.informer import Informer
from controlplane.errors import NotFound, Object
from controlplane.resources.catalog import EVENT, POD
from controlplane.resources.catalog import NODE as NODE_KIND
from netkit.kernel import netns
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.node.agent import NodeAgent
from netkit.node.settings import KubeletTls, NodeSettings
from netkit.podnet.pod import NO_WISHES, PodRef, RuntimeConfig, Sandbox

NODE = "node-1"
NODE_ADDRESS = "10.244.9.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class VethNetwork:
    """A PodNetworkDriver: one veth per pod, /32 routes on the node."""

    def __init__(self, node: str, ledger: Ledger) -> None:
        self.sandboxes: dict[str, Sandbox] = {}
        self._node = node
        self._ledger = ledger
        self._numbers = itertools.count(2)

    async def add(
        self, pod: PodRef, host_network: bool = False, config: RuntimeConfig = NO_WISHES
    ) -> Sandbox:
        if host_network:
            return Sandbox(self._node, (NODE_ADDRESS,), 1500)
        if pod.uid not in self.sandboxes:
            number = next(self._numbers)
            name, link, address = f"{self._node}.{number}", f"v{number}", f"10.244.9.{number}"
            netns.create(name, self._ledger).close()
            ip("-n", self._node, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", self._node, "link", "set", link, "up")
            ip("-n", self._node, "route", "add", f"{address}/32", "dev", link)
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "addr", "add", f"{address}/32", "dev", "eth0")
            ip("-n", name, "route", "add", "default", "dev", "eth0")
            self.sandboxes[pod.uid] = Sandbox(name, (address,), 1500, link)
        return self.sandboxes[pod.uid]

    async def remove(self, uid: str) -> None:
        sandbox = self.sandboxes.pop(uid, None)
        if sandbox is not None:
            netns.delete(sandbox.netns, self._ledger)

    async def list(self) -> dict[str, Sandbox]:
        return dict(self.sandboxes)


class Node:
    """The node and ways to look at it, as administrator. The agent runs as the node, until `stop_agent`."""

    def __init__(
        self, served: Served, client: Client, namespace: Namespace, runtime: RuntimeProcess, network: VethNetwork,
        settings: NodeSettings, ledger: Ledger, kubelet: Client,
    ) -> None:  # fmt: skip
        self.served = served
        self.client = client
        self.namespace = namespace
        self.runtime = runtime
        self.network = network
        self.settings = settings
        self.informer = Informer(client, POD)
        self._ledger = ledger
        self._kubelet = kubelet
        self._task: asyncio.Task[None] | None = None

    async def start_agent(self) -> None:
        async def all_nodes() -> list[Object]:
            return (await self.client.list(NODE_KIND)).items

        agent = NodeAgent(self.settings, self._kubelet, self.network, self._ledger, all_nodes)
        self._task = asyncio.create_task(agent.run())
        ready = asyncio.create_task(agent.ready())
        async with asyncio.timeout(60):
            await asyncio.wait([self._task, ready], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            ready.cancel()
            await self._task

    async def stop_agent(self) -> None:
        """As a death would: nothing is told to anybody."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def create(self, pod: Object) -> Object:
        return await self.client.create(POD, pod)

    async def get(self, name: str) -> Object | None:
        try:
            return await self.client.get(POD, name, "default")
        except NotFound:
            return None

    async def until(self, name: str, what: Callable[[Object], Any], timeout: float = 60) -> Object:
        """The pod once `what(pod)` is true."""
        last: Object | None = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    last = await self.get(name)
                    if last is not None and what(last):
                        return last
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"{name} never got there: {last and last.get('status')}") from None

    async def gone(self, name: str, timeout: float = 60) -> None:
        async with asyncio.timeout(timeout):
            while True:
                if await self.get(name) is None:
                    return
                await asyncio.sleep(0.03)

    async def events(self, name: str) -> list[Object]:
        found = await self.client.list(EVENT, "default", field_selector=f"involvedObject.name={name}")
        return found.items

    async def event(self, name: str, reason: str, timeout: float = 60) -> Object:
        async with asyncio.timeout(timeout):
            while True:
                for event in await self.events(name):
                    if event["reason"] == reason:
                        return event
                await asyncio.sleep(0.03)

    async def http(self, address: str, port: int = 80, path: str = "/") -> str:
        """One GET from the node; the answer's body."""
        sock = await self.dial(address, port)
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        try:
            return (await reader.read()).decode().partition("\r\n\r\n")[2]
        finally:
            writer.close()
            await writer.wait_closed()

    async def dial(self, address: str, port: int) -> socket.socket:
        sock = netns.socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock


@asynccontextmanager
async def node(directory: Path) -> AsyncIterator[Node]:
    """A node with its agent running."""
    ledger = Ledger(directory / "ledger", "test")
    name = f"nkagent-{uuid.uuid4().hex[:6]}"
    holder: dict[str, Node] = {}

    async def dial(address: str, port: int) -> socket.socket:
        return await holder["node"].dial(address, port)

    with netns.create(name, ledger) as namespace:
        network = VethNetwork(name, ledger)
        try:
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
            async with runtime_process(directory) as runtime, cluster(directory, dial) as served:
                transport = HttpsTransport(
                    served.url, ca=served.authority.certificate_path, certificate=served.admin.cert,
                    key=served.admin.key,
                )  # fmt: skip
                client = Client(transport)
                kubelet = served.authority.ensure(
                    "kubelet",
                    f"system:node:{NODE}",
                    ["system:nodes"],
                    ips=[ip_address(NODE_ADDRESS)],
                    server=True,
                )
                identity = served.authority.ensure("agent", f"system:node:{NODE}", ["system:nodes"])
                agent_client = Client(
                    HttpsTransport(
                        served.url,
                        ca=served.authority.certificate_path,
                        certificate=identity.cert,
                        key=identity.key,
                    )
                )
                settings = NodeSettings(
                    cluster="test", node_name=NODE, node_address=NODE_ADDRESS, node_ns=namespace,
                    state_dir=directory / "node", runtime_socket=runtime.socket,
                    image_file=directory / "images.yaml",
                    tls=KubeletTls(kubelet.cert, kubelet.key, served.authority.certificate_path),
                )  # fmt: skip
                made = holder["node"] = Node(
                    served, client, namespace, runtime, network, settings, ledger, agent_client
                )
                try:
                    await made.start_agent()
                    yield made
                finally:
                    await made.stop_agent()
                    await client.close()
                    await agent_client.close()
        finally:
            for sandbox in network.sandboxes.values():
                netns.delete(sandbox.netns, ledger)
            netns.delete(name, ledger)
            ledger.close()


def pod(name: str, *containers: Object, **spec: Any) -> Object:
    """A pod bound to the node; a container without a name is `app`."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "app", **container} for container in containers],
            **spec,
        },
    }


def is_ready(found: Object) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in found["status"].get("conditions", ())
    )


def container_status(found: Object, name: str = "app") -> Object:
    for status in found["status"].get("containerStatuses", ()):
        if status["name"] == name:
            result: Object = status
            return result
    return {"state": {}, "lastState": {}, "restartCount": 0}
