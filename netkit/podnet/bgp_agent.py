"""Tells a node's BGP daemon which range its pods have (loop). Run by the node's agent beside the pod network's loop.

The daemon itself is a process of its own, so that an agent's death withdraws no route.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import IPv4Network
from pathlib import Path

from controlplane.client.backoff import Backoff
from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.kernel import bird
from netkit.kernel.errors import KernelError
from netkit.podnet.bgp import Speaker, configuration
from netkit.podnet.peer import pod_range

log = logging.getLogger(__name__)


class Announcer:
    """`file` is the daemon's configuration, `control` its socket; `segments` are all of the cluster's."""

    def __init__(
        self, client: Client, speaker: Speaker, cluster_cidr: IPv4Network, segments: tuple[IPv4Network, ...],
        file: Path, control: Path,
    ) -> None:  # fmt: skip
        self._speaker = speaker
        self._cluster_cidr = cluster_cidr
        self._segments = segments
        self._file = file
        self._control = control
        self._nodes = Informer(client, NODE, field_selector=f"metadata.name={speaker.name}")
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        self._nodes.on_change(self._on_node)
        following = asyncio.create_task(self._nodes.run())
        try:
            await self._nodes.synced()
            await self._follow()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    def _on_node(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or pod_range(old) != pod_range(new):
            self._changed.set()

    async def _follow(self) -> None:
        backoff = Backoff(0.1, 5.0)
        while True:
            self._changed.clear()
            own = self._nodes.get("", self._speaker.name)
            text = configuration(
                self._speaker, self._cluster_cidr, self._segments, pod_range(own) if own is not None else None
            )
            try:
                await asyncio.to_thread(self._tell, text)
            except (KernelError, OSError) as error:
                wait = backoff.next()
                log.warning("%s: BGP daemon: %s; again in %.1f s", self._speaker.name, error, wait)
                await asyncio.sleep(wait)
                continue
            backoff.reset()
            await self._changed.wait()

    def _tell(self, text: str) -> None:
        """Write the file, and have the daemon read it. One that starts just now reads it anyway."""
        if not self._file.exists() or self._file.read_text(encoding="utf-8") != text:
            write(self._file, text)
            log.info("%s: BGP daemon is told anew", self._speaker.name)
        bird.ask(self._control, "configure")


def write(file: Path, text: str) -> None:
    """Replace a daemon's configuration in one step."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)
