"""Tells a node's BGP daemon which range its pods have (loop). Run by the node's agent beside the pod network's loop.

The daemon itself is a process of its own, so that an agent's death withdraws no route.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from controlplane.client.client import Client
from controlplane.client.informer import Informer
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.resources.catalog import NODE
from netkit.kernel import bird, file_write
from netkit.podnet.bgp import Speaker, configuration
from netkit.podnet.node_loop import keep_by_nodes
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

    async def run(self) -> None:
        """Work until cancelled."""
        await keep_by_nodes(self._nodes, _concerns, self._tell, f"{self._speaker.name}: BGP daemon", 5.0)

    def _tell(self, nodes: Sequence[Object]) -> None:
        """Write the file, and have the daemon read it. One that starts just now reads it anyway."""
        own = next((node for node in nodes if name(node) == self._speaker.name), None)
        mine = pod_range(own) if own is not None else None
        text = configuration(self._speaker, self._cluster_cidr, self._segments, mine)
        if not self._file.exists() or self._file.read_text(encoding="utf-8") != text:
            file_write.replace(self._file, text)
            log.info("%s: BGP daemon is told anew", self._speaker.name)
        bird.ask(self._control, "configure")


def _concerns(node: Object | None) -> object:
    return (pod_range(node),) if node is not None else None
