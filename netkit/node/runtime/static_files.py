"""Files a builtin web server serves: from volumes mounted at its document root, or written there through
exec.

Used by `builtin`. Reads small files; never leaves the directory it serves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from netkit.node.runtime.behaviours import Response, nginx_error
from netkit.node.runtime.http_parser import Request
from netkit.node.runtime.spec import BindMount

DOCUMENT_ROOTS: Final[Mapping[str, str]] = {
    "nginx": "/usr/share/nginx/html",
    "httpd": "/usr/local/apache2/htdocs",
}
_LARGEST: Final = 16 << 20
_TYPES: Final = {
    ".html": "text/html", ".htm": "text/html", ".txt": "text/plain", ".css": "text/css", ".json":
    "application/json", ".js": "application/javascript", ".png": "image/png", ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}  # fmt: skip


class StaticFiles:
    """One container's document root. `container_root` gives the path of the running exec view, or ""."""

    def __init__(self, behaviour: str, binds: Sequence[BindMount], container_root: Callable[[], str]) -> None:
        self._document_root = DOCUMENT_ROOTS[behaviour]
        self._volume = _volume_path(self._document_root, binds)
        self._container_root = container_root
        self._not_found = nginx_error(404, "Not Found")

    def __call__(self, request: Request) -> Response | None:
        """The file's answer; None when the behaviour's own page shall answer."""
        if request.method not in ("GET", "HEAD"):
            return None
        path = os.path.normpath("/" + request.path.lstrip("/"))
        if request.path.endswith("/"):
            path = os.path.join(path, "index.html")
        if self._volume:
            found = _read(self._volume, path)
            if found is None and path == "/index.html":
                return nginx_error(403, "Forbidden")
            return _response(path, found) if found is not None else self._not_found
        root = self._container_root()
        inside = f"{root}{self._document_root}"
        if root and _changed(inside + path, self._document_root + path):
            found = _read_in_container(inside + path)
            return _response(path, found) if found is not None else None
        return None


def _volume_path(document_root: str, binds: Sequence[BindMount]) -> str:
    for bind in binds:
        target = bind.target.rstrip("/")
        if document_root == target:
            return bind.source
        if document_root.startswith(f"{target}/"):
            return bind.source + document_root[len(target) :]
    return ""


def _changed(inside: str, on_machine: str) -> bool:
    """Whether the container's file differs from what the machine has at the same place."""
    try:
        own = os.stat(inside)
    except OSError:
        return False
    try:
        machine = os.stat(on_machine)
    except OSError:
        return True
    return (own.st_size, own.st_mtime_ns) != (machine.st_size, machine.st_mtime_ns)


def _read(root: str, path: str) -> bytes | None:
    full = os.path.realpath(root + path)
    if not full.startswith(os.path.realpath(root) + "/"):
        return None
    try:
        with open(full, "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return None


def _read_in_container(path: str) -> bytes | None:
    # /proc/PID/root cannot be resolved by name, so links, which could point out of it, are not followed.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(_LARGEST)


def _response(path: str, data: bytes) -> Response:
    kind = _TYPES.get(os.path.splitext(path)[1], "application/octet-stream")
    return Response(200, data, kind, "nginx/1.27.5")
