"""A whole control plane for other people's clients: restarts on the same port, records what it is asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.apiserver import Served, cluster
from support.asked import Asked
from support.client_kubelet import RemoteKubelet
from support.client_wait import running
from support.streaming_kubelet import StreamingKubelet

from controlplane.apiserver.app import ServerConfig
from controlplane.apiserver.local_clients import component_clients
from controlplane.client.client import Client
from controlplane.control_loop import ControllerSettings, run_controllers
from controlplane.errors import Object
from controlplane.meta.objects import dig, name
from controlplane.resources.catalog import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, NODE, SERVICE_ACCOUNT
from controlplane.resources.kind import Kind
from controlplane.store.protocol import Delete
from controlplane.store.sqlite import SQLiteStore

LIMIT = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(slots=True)
class Live:
    """`served` and `client` are of the server that runs now."""

    directory: Path
    kubelet: StreamingKubelet
    port: int = field(default_factory=free_port)
    asked: Asked = field(default_factory=Asked)
    _running: AsyncExitStack = field(default_factory=AsyncExitStack)
    _served: Served | None = None

    @property
    def served(self) -> Served:
        assert self._served is not None, "the server is down"
        return self._served

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def client(self) -> Client:
        return component_clients(self.served.server).api_server

    async def start(self) -> None:
        """Serve with all controllers and two nodes that are ready; their pods run by word only."""
        config = ServerConfig(observers=(self.asked,), kubelet_tls=self.kubelet.client_tls)
        self._served = served = await self._running.enter_async_context(
            cluster(self.directory, self.kubelet.dial, disabled_admission=(), port=self.port, config=config)
        )
        clients = component_clients(served.server)
        settings = ControllerSettings(pki_dir=self.directory / "pki")
        nodes = RemoteKubelet(clients.api_server, ("node1", "node2"))
        controllers = run_controllers(clients, settings, served.authority.certificate_pem.decode())
        await self._running.enter_async_context(running(controllers, nodes.run()))
        client = clients.api_server
        await seen(client, NODE, lambda obj: name(obj) == "node2" and dig(obj, "status", "conditions"))
        for kind, wanted in ((CONFIG_MAP, "kube-root-ca.crt"), (SERVICE_ACCOUNT, "default")):
            await seen(client, kind, lambda obj, wanted=wanted: name(obj) == wanted, "default")

    async def stop(self) -> None:
        self._served = None
        await self._running.aclose()

    async def restart(self, *, forget: bool = False) -> None:
        """End the server and start it again over the same store. `forget` compacts all history in between."""
        await self.stop()
        if forget:
            await self.lose()
        await self.start()

    async def lose(self, *keys: str) -> None:
        """While the server is down: delete keys of the store, then compact all history."""
        store = SQLiteStore(self.directory / "store.db")
        for key in keys:
            await store.commit([Delete(key)])
        await store.compact(await store.revision())
        await store.close()

    def kubeconfig(self, **user: str) -> str:
        """The path of a file for the administrator, or for a `user` (`token="..."`), in namespace `default`."""
        admin = self.served.admin
        entry = user or {"client-certificate": str(admin.cert), "client-key": str(admin.key)}
        reached = {"server": self.url, "certificate-authority": str(self.served.authority.certificate_path)}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": reached}],
            "users": [{"name": "test", "user": entry}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}
            ],
        }
        path = self.directory / f"kubeconfig{len(list(self.directory.glob('kubeconfig*')))}"
        path.write_text(json.dumps(config))
        return str(path)


async def seen(
    client: Client,
    kind: Kind,
    condition: Callable[[Object], Any],
    namespace: str = "",
    seconds: float = LIMIT,
) -> Object:
    """The first object for which `condition` holds, of those there and those that come."""
    async with asyncio.timeout(seconds), aclosing(client.watch(kind, namespace, bookmarks=False)) as events:
        async for event in events:
            if condition(event.object):
                return event.object
    raise AssertionError("the watch ended before what was waited for")


async def established(client: Client, definition: Object) -> None:
    """Create a CustomResourceDefinition and wait until it is served."""
    made = await client.create(CUSTOM_RESOURCE_DEFINITION, definition)

    def ready(obj: Object) -> bool:
        conditions = dig(obj, "status", "conditions", default=())
        return name(obj) == name(made) and ("Established", "True") in {
            (each["type"], each["status"]) for each in conditions
        }

    await seen(client, CUSTOM_RESOURCE_DEFINITION, ready)


@asynccontextmanager
async def live(directory: Path) -> AsyncIterator[Live]:
    async with StreamingKubelet.serving(directory) as kubelet:
        made = Live(directory, kubelet)
        await made.start()
        try:
            yield made
        finally:
            await made.stop()
