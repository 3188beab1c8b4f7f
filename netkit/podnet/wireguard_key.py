"""A node's private key of the mode `wireguard`: a file that only root can read, made once, which never leaves the node.

X25519, in base64, as wg(8) writes keys. A new key is made when the file is gone: then the agent's next look at the
kernel gives it to the device, and tells the other nodes the public one.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

KEY_FILE: Final = "wireguard.key"


@dataclass(frozen=True, slots=True)
class Key:
    """Both halves; the private one is not printed."""

    private: str = field(repr=False)
    public: str


def own_key(state_dir: Path) -> Key:
    """The node's key, made if there is none. ValueError for a file that holds no key, OSError."""
    found = read_key(state_dir)
    if found is not None:
        return found
    path = state_dir / KEY_FILE
    temporary = path.with_name(f".{KEY_FILE}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(_fresh() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    made = read_key(state_dir)
    assert made is not None
    return made


def read_key(state_dir: Path) -> Key | None:
    """The node's key, None if it has none. ValueError for a file that holds no key."""
    path = state_dir / KEY_FILE
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != 32:
        raise ValueError(f"{path}: there is no key in it; remove it to have a new one made")
    # The library is large, and only clusters in this mode come here.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()
    return Key(text, base64.b64encode(public).decode())


def _fresh() -> str:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()
