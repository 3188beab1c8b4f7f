"""The text protocol by which userspace implementations of WireGuard are set and asked, over a unix socket.

Specified at wireguard.com/xplatform: a request is `set=1` or `get=1` with lines `key=value` and an empty line, the
answer ends with `errno=N` and an empty line. Keys are hexadecimal here. A change is one request: all of it, or what the
program had read when something was wrong.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from netkit.kernel.errors import KernelError, TimedOut, from_os_error
from netkit.kernel.wireguard_values import GREETING_SECONDS, Change, Peer, State

_PATIENCE: Final = 5.0


def set_request(change: Change) -> str:
    """The request for a change, but for its greetings."""
    lines = ["set=1"]
    if change.private_key:
        lines.append(f"private_key={_hex(change.private_key)}")
    if change.port:
        lines.append(f"listen_port={change.port}")
    for key in change.removed:
        lines += [f"public_key={_hex(key)}", "remove=true"]
    for peer in change.peers:
        lines += [
            f"public_key={_hex(peer.public_key)}",
            f"endpoint={peer.endpoint}:{peer.port}",
            f"persistent_keepalive_interval={peer.keepalive}",
            "replace_allowed_ips=true",
            *(f"allowed_ip={network}" for network in peer.allowed),
        ]
    return "\n".join(lines) + "\n\n"


def keepalive_request(peers: tuple[Peer, ...], seconds: int | None = None) -> str:
    """The request that changes nothing but peers' keepalive: to `seconds`, or to what it shall be."""
    lines = ["set=1"]
    for peer in peers:
        interval = peer.keepalive if seconds is None else seconds
        lines += [
            f"public_key={_hex(peer.public_key)}",
            "update_only=true",
            f"persistent_keepalive_interval={interval}",
        ]
    return "\n".join(lines) + "\n\n"


def state_in(answer: str) -> State:
    """What the answer to `get=1` tells. ValueError for what is no such answer."""
    private, port = "", 0
    found: list[dict[str, list[str]]] = []
    for line in answer.splitlines():
        key, _, value = line.partition("=")
        if key == "private_key":
            private = value
        elif key == "listen_port":
            port = int(value)
        elif key == "public_key":
            found.append({key: [value]})
        elif found:
            found[-1].setdefault(key, []).append(value)
    peers = [_peer(each) for each in found]
    agreed = (
        peer.public_key
        for peer, lines in zip(peers, found, strict=True)
        if lines.get("last_handshake_time_sec", ["0"]) != ["0"]
    )
    return State(_public(private), port, {peer.public_key: peer for peer in peers}, frozenset(agreed))


class Uapi:
    """The socket at `path` of a running program. Each request is a connection of its own."""

    def __init__(self, path: Path, namespace: str = "") -> None:
        self._path = path
        self._namespace = namespace

    def apply(self, change: Change) -> None:
        """Change it. Raises KernelError."""
        what = f"wg set {self._path.stem} {change}"
        if change.settings:
            self._ask(set_request(change), what)
        if change.greeted:
            self._ask(keepalive_request(change.greeted, GREETING_SECONDS), what)
            self._ask(keepalive_request(change.greeted), what)

    def read(self) -> State:
        """What it is set to. Raises KernelError; `is_not_found` when nobody is there."""
        what = f"wg show {self._path.stem}"
        try:
            return state_in(self._ask("get=1\n\n", what))
        except ValueError as error:
            raise KernelError(what, self._namespace, errno.EPROTO, str(error)) from error

    def _ask(self, request: str, what: str) -> str:
        answer = b""
        try:
            with _connected(self._path) as sock:
                sock.sendall(request.encode())
                while not answer.endswith(b"\n\n"):
                    data = sock.recv(1 << 16)
                    if not data:
                        raise KernelError(what, self._namespace, errno.ECONNRESET, "the program hung up")
                    answer += data
        except TimeoutError as error:
            why = f"no answer within {_PATIENCE:g} s"
            raise TimedOut(what, self._namespace, stderr=why) from error
        except ConnectionRefusedError as error:
            raise KernelError(what, self._namespace, errno.ENXIO, "nobody listens") from error
        except OSError as error:
            raise from_os_error(error, what, self._namespace) from error
        text = answer.decode()
        head, _, status = text.rstrip("\n").rpartition("errno=")
        if code := int(status):
            raise KernelError(what, self._namespace, abs(code))
        return head


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    """Through the directory's descriptor: the path may be longer than the 107 bytes that a socket's name has."""
    place = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(f"/proc/self/fd/{place}/{path.name}")
            yield sock
    finally:
        os.close(place)


def listening(path: Path) -> socket.socket:
    """A listening socket at `path`, for a program that is about to be started; whatever was there is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    place = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(f"/proc/self/fd/{place}/{path.name}")
        sock.listen()
    except OSError:
        sock.close()
        raise
    finally:
        os.close(place)
    return sock


def _peer(lines: dict[str, list[str]]) -> Peer:
    address, _, port = lines.get("endpoint", ["0.0.0.0:0"])[0].rpartition(":")
    networks = (IPv4Network(text) for text in lines.get("allowed_ip", ()) if ":" not in text)
    return Peer(
        public_key=base64.b64encode(bytes.fromhex(lines["public_key"][0])).decode(),
        endpoint=IPv4Address(address),
        port=int(port),
        allowed=tuple(sorted(networks)),
        keepalive=int(lines.get("persistent_keepalive_interval", ["0"])[0]),
    )


def _hex(key: str) -> str:
    return base64.b64decode(key, validate=True).hex()


def _public(private: str) -> str:
    """The public key of a private one in hexadecimal, in base64; "" for none."""
    if not private.strip("0"):
        return ""
    # The library is large, and only clusters with such devices come here.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(bytes.fromhex(private))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()
