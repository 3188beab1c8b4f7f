"""The control plane as one process serves it: certificates, store, the composed parts, and controllers handed in.

`netkit.cluster` calls `serve_control_plane` inside the control plane's process. It makes no sockets (they are passed
in, bound) and knows no way into the cluster's network (`dial` is passed in).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any

from controlplane.apiserver.composition import ControlPlane
from controlplane.apiserver.cycle_collector import full_collections_by_the_clock
from controlplane.apiserver.local_clients import component_clients
from controlplane.apiserver.server_certificates import prepare_pki
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.apiserver.streams import Dial
from controlplane.client.components import Clients
from controlplane.store.sqlite import SQLiteStore

log = logging.getLogger(__name__)

Controllers = Callable[[Clients, str], Coroutine[Any, Any, None]]
"""Runs all controllers and the scheduler until it is cancelled; gets clients and the CA's certificate (PEM)."""


async def serve_control_plane(
    settings: ControlPlaneSettings,
    sockets: Sequence[socket.socket],
    dial: Dial,
    controllers: Controllers | None = None,
    *,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until cancelled, or until a controller fails for good (its exception is raised then).

    `sockets` are bound TCP sockets; they are closed at the end. `on_ready` is called once, when requests are
    answered and the first objects are there. Raises StoreError, PkiError, OSError when it cannot start.
    """
    started = time.monotonic()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    certificates = prepare_pki(settings, (ip_address(sock.getsockname()[0]) for sock in sockets))
    store = SQLiteStore(settings.data_dir / "store.db")
    try:
        with full_collections_by_the_clock():
            address = _address(settings, sockets)
            running = controllers is not None
            plane = ControlPlane(settings, store, certificates, dial, address, with_controllers=running)
            try:
                await plane.start()
                await plane.serve(sockets)
                log.info("control plane: ready in %.0f ms", (time.monotonic() - started) * 1000)
                if on_ready is not None:
                    on_ready()
                if controllers is None:
                    await asyncio.get_running_loop().create_future()
                else:
                    authority = certificates.authority.certificate_pem.decode()
                    await controllers(component_clients(plane.server), authority)
            finally:
                await plane.close()
    finally:
        await store.close()


def _address(settings: ControlPlaneSettings, sockets: Sequence[socket.socket]) -> str:
    host, port = sockets[0].getsockname()[:2] if sockets else ("127.0.0.1", settings.advertise_port)
    return f"{host}:{port}"
