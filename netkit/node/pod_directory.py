"""The directory of one pod on the machine: volumes, files for /etc, logs. Writes files only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from controlplane.errors import Object
from netkit.node.podspec import network_files
from netkit.node.podspec.network_files import ClusterDns


def pods_directory(state_dir: Path) -> Path:
    """Where all pods' directories lie, one per uid."""
    return state_dir / "pods"


class PodDirectory:
    """Paths and files of the pod `uid`."""

    def __init__(self, state_dir: Path, uid: str) -> None:
        self.path = pods_directory(state_dir) / uid

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    def log(self, container: str, attempt: int) -> Path:
        """The log of one attempt of a container, as kubelet names it."""
        return self.path / "logs" / container / f"{attempt}.log"

    def drop_log(self, container: str, attempt: int) -> None:
        """Delete an old attempt's log."""
        log = self.log(container, attempt)
        log.unlink(missing_ok=True)
        log.with_name(f"{log.name}.1").unlink(missing_ok=True)

    def write_etc(
        self, pod: Object, addresses: Sequence[str], hostname: str, dns: ClusterDns, *, anew: bool
    ) -> dict[str, str]:
        """Write resolv.conf, hosts and hostname; path in the container -> path on the machine.

        Files that exist are left as they are, with what was edited in the pod, unless `anew`; then they are
        written in place, since they may be mounted.
        """
        folder = self.path / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "resolv.conf": network_files.resolv_conf(pod, dns),
            "hosts": network_files.hosts(pod, addresses, hostname, dns.domain),
            "hostname": f"{hostname}\n",
        }
        for name, text in texts.items():
            file = folder / name
            if anew or not file.exists():
                file.write_text(text, encoding="utf-8")
        return {f"/etc/{name}": str(folder / name) for name in texts}

    def remove(self) -> None:
        """Delete everything of the pod; fine when there is nothing."""
        if os.path.isdir(self.path):
            shutil.rmtree(self.path)
