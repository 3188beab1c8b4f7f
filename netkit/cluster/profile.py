"""Where a cluster keeps its things: one directory per cluster, and the facts other commands read from it.

Called by every command that works on an existing cluster. Makes and removes only what lies inside its directory.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from netkit.cluster.errors import ClusterError, NoSuchCluster
from netkit.kernel import file_write


def state_root() -> Path:
    """The directory of all clusters: `NETKIT_STATE`, else /var/lib/netkit."""
    return Path(os.environ.get("NETKIT_STATE") or "/var/lib/netkit")


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """One machine: its role (`node`, `control-plane`, `outside client`, `router`, `switch`), namespace and address, ""
    for none.
    """

    name: str
    role: str
    namespace: str
    address: str


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What `up` decided, for the commands that come later. Addresses and ranges are text.

    `attach` is how pods hang on nodes, or the plug-ins that attach them, which are in `cni_path`. `routes` is how
    routers come to know pods' ranges.
    """

    name: str
    server: str
    segment: str
    pod_subnet: str
    service_subnet: str
    host_link: str
    host_address: str
    kubeconfig: str
    kubeconfig_created: bool
    previous_context: str
    machines: tuple[MachineFacts, ...]
    attach: str = "bridge"
    cni_path: tuple[str, ...] = ()
    routes: str = "static"

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes."""
        return [machine.name for machine in self.machines if machine.role == "node"]

    def machine(self, name: str) -> MachineFacts | None:
        return next((m for m in self.machines if m.name == name), None)


class Profile:
    """The directory of the cluster `name`."""

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.name = name
        self.directory = (root or state_root()) / name
        self._lock: TextIO | None = None

    @property
    def ledger(self) -> Path:
        return self.directory / "ledger"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def database(self) -> Path:
        return self.directory / "store.db"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def images(self) -> Path:
        """The user's image catalogue; it belongs to the cluster."""
        return self.directory / "images.yaml"

    @property
    def admin_kubeconfig(self) -> Path:
        return self.directory / "admin.kubeconfig"

    def node(self, name: str) -> Path:
        return self.directory / "nodes" / name

    @property
    def switch_lock(self) -> Path:
        """The lock file of the switch's packet filter."""
        return self.run / "switch.xtables"

    @property
    def exists(self) -> bool:
        return self.directory.is_dir()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while a command makes or removes the cluster. Raises ClusterError when another one holds it."""
        root = self.directory.parent
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = root / f".{self.name}.lock"
        while True:
            with path.open("w") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise ClusterError(
                        f"another command is working on cluster {self.name} right now"
                    ) from None
                # The file goes away with the lock: who opened the old one must not take it for the new one.
                if not path.exists() or path.stat().st_ino != os.fstat(handle.fileno()).st_ino:
                    continue
                self._lock = handle
                try:
                    yield
                finally:
                    self._lock = None
                    path.unlink(missing_ok=True)
                    with suppress(OSError):
                        root.rmdir()
                return

    def leave_lock(self) -> None:
        """For a process forked while the lock was held: the lock is the command's and ends with it, not with us."""
        if self._lock is not None:
            self._lock.close()

    def write_facts(self, facts: ClusterFacts) -> None:
        file_write.replace(self.directory / "cluster.json", json.dumps(asdict(facts), indent=2) + "\n")

    def facts(self) -> ClusterFacts:
        """What `up` wrote. Raises NoSuchCluster when there is no such cluster or its start never got that far, and
        ClusterError when it is somebody else's.
        """
        try:
            data = json.loads((self.directory / "cluster.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            if self.exists:
                raise NoSuchCluster(
                    f"cluster {self.name} is not complete: its start was interrupted",
                    f"remove what is left with: netkit down -p {self.name}",
                ) from None
            raise no_such_cluster(self.name, self.directory.parent) from None
        except PermissionError:
            raise ClusterError(f"cluster {self.name} belongs to another user", "run it with sudo") from None
        machines = tuple(MachineFacts(**machine) for machine in data.pop("machines"))
        cni_path = tuple(data.pop("cni_path", ()))
        return ClusterFacts(machines=machines, cni_path=cni_path, **data)


def no_such_cluster(name: str, root: Path) -> NoSuchCluster:
    others = names(root)
    return NoSuchCluster(
        f"there is no cluster {name}",
        f"running: {', '.join(others)}" if others else f"make one with: netkit up -p {name}",
    )


def names(root: Path | None = None) -> list[str]:
    """Names of all clusters that have a directory."""
    base = root or state_root()
    if not base.is_dir():
        return []
    return sorted(entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith("."))
