"""What was added to a network by plug-ins of others: a file per attachment, as libcni keeps them.

An entry is written before the first plug-in runs and holds the configuration that was used and, once there is one, the
result: so DEL can be called with what ADD was called with, after any restart and though the list has changed meanwhile.
libcni's fields have libcni's names (`cniCacheV1`); the pod and its namespace are ours.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from netkit.cni.conflist import BadConflist, Conflist, parse
from netkit.cni.request import Attachment
from netkit.kernel import file_write
from netkit.podnet.pod import PodRef

_KIND: Final = "cniCacheV1"


class CacheBroken(Exception):
    """A file that cannot be understood; without it nothing of its pod could be taken back."""


@dataclass(frozen=True, slots=True)
class Cached:
    """An attachment of a pod. `netns` is the namespace's name; `result` None until ADD has ended well."""

    pod: PodRef
    netns: str
    attachment: Attachment
    conflist: Conflist
    arguments: str
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None


class Cache:
    """The directory of one node. Nobody else writes there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def all(self) -> list[Cached]:
        """Every attachment, oldest first. Raises CacheBroken."""
        if not self._directory.is_dir():
            return []
        paths = [path for path in self._directory.iterdir() if path.suffix == ".json"]
        return [_read(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)]

    def keep(self, cached: Cached) -> None:
        """Replaces what was kept of the attachment."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file_write.replace(self._path(cached), json.dumps(_document(cached), indent=1) + "\n")

    def forget(self, cached: Cached) -> None:
        """Fine when it is gone."""
        self._path(cached).unlink(missing_ok=True)

    def _path(self, cached: Cached) -> Path:
        name = f"{cached.conflist.name}-{cached.attachment.container}-{cached.attachment.interface}"
        return self._directory / f"{name}.json"


def _document(cached: Cached) -> dict[str, Any]:
    return {
        "kind": _KIND,
        "containerId": cached.attachment.container,
        "ifName": cached.attachment.interface,
        "networkName": cached.conflist.name,
        "config": base64.b64encode(json.dumps(cached.conflist.as_json()).encode()).decode(),
        "cniArgs": [pair.split("=", 1) for pair in cached.arguments.split(";") if pair],
        "capabilityArgs": dict(cached.capabilities),
        "result": cached.result,
        "pod": asdict(cached.pod),
        "netns": cached.netns,
    }


def _read(path: Path) -> Cached:
    try:
        found = json.loads(path.read_text())
        return Cached(
            PodRef(**found["pod"]),
            found["netns"],
            Attachment(found["containerId"], found["ifName"]),
            parse(base64.b64decode(found["config"]).decode()),
            ";".join(f"{key}={value}" for key, value in found["cniArgs"]),
            found["capabilityArgs"],
            found["result"],
        )
    except (OSError, ValueError, KeyError, TypeError, BadConflist) as error:
        raise CacheBroken(f"{path}: {error}") from error
