"""The addresses given to the pods of one node, kept in one file of the node's state directory.

Called by `network`. The file is replaced as a whole (write, rename) before an address is used, so that
neither a crash nor a restart gives an address twice. Each lease also names the pod's namespace and cable: it
is what a restarted agent adopts sandboxes by. Knows nothing of the kernel.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from netkit.podnet.address import next_address
from netkit.podnet.pod import PodRef, PortMapping, link_name

_VERSION = 1


class LeaseFileBroken(Exception):
    """The file cannot be understood. Going on without it could give an address twice."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One pod's address, with the names that were made for it and the node's ports that lead to it."""

    uid: str
    namespace: str
    name: str
    address: IPv4Address
    netns: str
    link: str
    ports: tuple[PortMapping, ...] = ()

    @property
    def pod(self) -> PodRef:
        return PodRef(self.namespace, self.name, self.uid)


class Leases:
    """The leases of one node. One process at a time may have the file open; not for several threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._leases: dict[str, Lease] = {}
        self._rows: dict[str, str] = {}
        self._last: IPv4Address | None = None
        self._serial = 0
        self._load()

    def get(self, uid: str) -> Lease | None:
        return self._leases.get(uid)

    def all(self) -> list[Lease]:
        """Every lease, oldest first."""
        return list(self._leases.values())

    def take(
        self, node_range: IPv4Network, pod: PodRef, netns: str, ports: tuple[PortMapping, ...] = ()
    ) -> Lease:
        """The pod's lease: the one it has, or a new one that is on disk when this returns.

        PoolExhausted when the range is full, OSError when the file cannot be written (nothing is given then).
        """
        present = self._leases.get(pod.uid)
        if present is not None:
            return present
        taken = {lease.address for lease in self._leases.values()}
        address = next_address(node_range, taken, self._last)
        before = self._last, self._serial
        self._last, self._serial = address, self._serial + 1
        link = link_name(pod.uid, self._serial)
        lease = Lease(pod.uid, pod.namespace, pod.name, address, netns, link, ports)
        self._leases[pod.uid] = lease
        self._rows[pod.uid] = _row(lease)
        try:
            self._store()
        except OSError:
            del self._leases[pod.uid]
            self._last, self._serial = before
            raise
        return lease

    def release(self, uid: str) -> None:
        """Give the pod's address back; fine when it has none."""
        lease = self._leases.pop(uid, None)
        if lease is not None:
            try:
                self._store()
            except OSError:
                self._leases[uid] = lease
                raise
            del self._rows[uid]

    def _store(self) -> None:
        head = json.dumps({"version": _VERSION, "last": str(self._last or ""), "serial": self._serial})
        rows = ",\n".join(self._rows[uid] for uid in self._leases)
        temporary = self._path.with_name(f".{self._path.name}.new")
        temporary.write_text(f'{head[:-1]}, "leases": [\n{rows}\n]}}\n')
        os.replace(temporary, self._path)

    def _load(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            state = json.loads(text)
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}")
            leases = [_lease(item) for item in state["leases"]]
            self._last = IPv4Address(state["last"]) if state["last"] else None
            self._serial = int(state["serial"])
        except (ValueError, KeyError, TypeError) as error:
            raise LeaseFileBroken(f"{self._path}: {error}") from error
        self._leases = {lease.uid: lease for lease in leases}
        self._rows = {lease.uid: _row(lease) for lease in leases}
        if len({lease.address for lease in leases}) != len(leases):
            raise LeaseFileBroken(f"{self._path}: an address is given twice")


def _lease(row: dict[str, Any]) -> Lease:
    ports = tuple(PortMapping(**port) for port in row.pop("ports", ()))
    return Lease(**{**row, "address": IPv4Address(row["address"])}, ports=ports)


def _row(lease: Lease) -> str:
    """The lease as JSON, made once: the file is written for every pod that comes or goes."""
    ports = {"ports": [asdict(port) for port in lease.ports]} if lease.ports else {}
    return json.dumps(
        {
            **ports,
            "uid": lease.uid,
            "namespace": lease.namespace,
            "name": lease.name,
            "address": str(lease.address),
            "netns": lease.netns,
            "link": lease.link,
        }
    )
