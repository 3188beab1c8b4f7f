"""The words of exec and attach: protocol versions, channels, the final status, resize messages. Pure.

Used by both transports (`kubelet.websocket_command`, `kubelet.spdy_command`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from controlplane.errors import Object

SPDY_VERSIONS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "",
)
WEBSOCKET_VERSIONS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
"""Without any of them a client gets the oldest, `channel.k8s.io`."""
CLOSE_SIGNAL: Final = 255
_LONGEST_RESIZE: Final = 1024


class Channel(IntEnum):
    """First byte of a WebSocket message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams the client asked for."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


@dataclass(frozen=True, slots=True)
class Stdin:
    """Input of the client; `finished` = no more will come."""

    data: bytes
    finished: bool = False


@dataclass(frozen=True, slots=True)
class Resize:
    """The client's window in characters."""

    width: int
    height: int


def exit_status(code: int) -> Object:
    """The final status for a program that ended with `code`."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure_status(message: str) -> Object:
    """The final status for a program that could not be run."""
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": f"Internal error occurred: {message}",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def status_bytes(status: Object, version: str) -> bytes:
    """As it goes on the error stream: JSON since v4, before that the text of a failure. Of WebSockets too."""
    if version.startswith(("v5", "v4")):
        return json.dumps(status).encode()
    if status["status"] == "Success":
        return b""
    return str(status["message"]).encode()


def parse_resize(data: bytes) -> Resize | None:
    """A resize message, None if it is none."""
    if len(data) > _LONGEST_RESIZE:
        return None
    try:
        size = json.loads(data)
        return Resize(int(size["Width"]), int(size["Height"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def choose(offered: list[str], supported: tuple[str, ...]) -> str | None:
    """The first version of the client's list that is supported; "" stands for a client that offers none."""
    if not offered:
        return "" if "" in supported else None
    return next((version for version in offered if version in supported and version), None)
