"""What the plug-in has made for a network: one file, with a lock, in the plug-in's data directory.

An entry is written before anything is made for it, so that DEL, GC and the next choice of an address know of it
whenever the plug-in was killed. Kept by (container, interface), as the specification wants it.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from netkit.cni.errors import CniError, Code
from netkit.cni.request import Attachment
from netkit.kernel import file_write


@dataclass(frozen=True, slots=True)
class Made:
    """One attachment. `link` is the machine's end of its cable; `address` is "" when a plug-in for addresses has it."""

    container: str
    interface: str
    link: str
    address: str = ""
    masquerade: str = ""

    @property
    def attachment(self) -> Attachment:
        return Attachment(self.container, self.interface)


class Attachments:
    """The file of one network. Every change happens inside `locked`, which other processes wait for."""

    def __init__(self, data_dir: str, network: str) -> None:
        self._path = Path(data_dir) / f"{network}.json"
        self._made: dict[Attachment, Made] = {}
        self.last: IPv4Address | None = None

    @contextmanager
    def locked(self) -> Iterator[Attachments]:
        """Read the file under its lock. Raises CniError when it cannot be read."""
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._load()
                yield self
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"{self._path}: {error.strerror or error}") from error

    def get(self, attachment: Attachment) -> Made | None:
        return self._made.get(attachment)

    def all(self) -> list[Made]:
        return list(self._made.values())

    def keep(self, made: Made) -> None:
        """On disk when this returns."""
        self._made[made.attachment] = made
        if made.address:
            self.last = IPv4Address(made.address)
        self._store()

    def forget(self, attachment: Attachment) -> None:
        """Fine when it is not there."""
        if self._made.pop(attachment, None) is not None:
            self._store()

    def _load(self) -> None:
        try:
            found = json.loads(self._path.read_text())
            made = [Made(**item) for item in found["attachments"]]
            self.last = IPv4Address(found["last"]) if found["last"] else None
        except FileNotFoundError:
            made = []
        except (ValueError, KeyError, TypeError) as error:
            raise CniError(Code.IO_FAILURE, f"{self._path} cannot be understood: {error}") from error
        self._made = {item.attachment: item for item in made}

    def _store(self) -> None:
        document = {
            "last": str(self.last or ""),
            "attachments": [asdict(item) for item in self._made.values()],
        }
        file_write.replace(self._path, json.dumps(document, indent=1) + "\n")
