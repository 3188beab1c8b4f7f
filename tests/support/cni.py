"""Calling CNI plug-ins as libcni (and so cnitool, containerd and podman) does. Knows nothing of netkit.cni."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netkit.cni.install import install
from netkit.kernel import netns, process
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.teardown import teardown

DEBIAN = "/usr/lib/cni"


@dataclass
class Refused(Exception):
    """What a plug-in printed instead of a result."""

    code: int
    told: dict[str, Any]
    returncode: int


@dataclass
class Cnitool:
    """Adds and removes containers of one network configuration on `machine`. `path` is CNI_PATH."""

    machine: Namespace
    place: Path
    config: dict[str, Any]
    path: str = ""
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        install(self.place / "bin")
        self.path = self.path or f"{self.place}/bin:{DEBIAN}"

    def call(
        self, command: str, container: str = "", netns: str = "", ifname: str = "eth0", **extra: Any
    ) -> Any:
        environment = {
            "CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_NETNS": netns, "CNI_IFNAME": ifname,
            "CNI_PATH": self.path, "CNI_ARGS": "IgnoreUnknown=1",
        }  # fmt: skip
        if command in ("VERSION", "STATUS", "GC"):
            environment |= {"CNI_CONTAINERID": "", "CNI_IFNAME": ""}
        text = json.dumps({**self.config, **extra})
        done = process.run(
            [f"{self.place}/bin/netkit-cni"], ns=self.machine, input=text.encode(), env=environment
        )
        told = json.loads(done.stdout) if done.stdout.strip() else None
        if done.returncode:
            assert told, done.stderr.decode()
            raise Refused(told["code"], told, done.returncode)
        assert done.stderr == b""
        return told

    def add(self, container: str, ns: Namespace, **extra: Any) -> Any:
        self.results[container] = self.call("ADD", container, ns.path, **extra)
        return self.results[container]

    def check(self, container: str, ns: Namespace) -> None:
        assert self.call("CHECK", container, ns.path, prevResult=self.results[container]) is None

    def delete(self, container: str, ns: Namespace | None = None) -> None:
        told = self.results.get(container)
        extra = {"prevResult": told} if told else {}
        assert self.call("DEL", container, ns.path if ns else "", **extra) is None


@contextlib.contextmanager
def containers(place: Path, *names: str) -> Iterator[list[Namespace]]:
    """Namespaces without anything in them, as a runtime makes them."""
    with Ledger(place / "ledger", "runtime") as ledger, contextlib.ExitStack() as stack:
        made = [stack.enter_context(netns.create(f"c.{name}", ledger)) for name in names]
        try:
            yield made
        finally:
            teardown(place / "ledger")


def debian_plugins() -> bool:
    return os.path.exists(f"{DEBIAN}/host-local")
