"""HTTP/1.1 requests out of bytes, without I/O: as much as an echo server needs.

Used by `http_server`. A small parser of our own because one process holds hundreds of servers and must
stay small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_LARGEST_HEAD = 64 * 1024
_LARGEST_BODY = 4 * 1024 * 1024


class BadHttp(ValueError):
    """Not an HTTP request, or too large. `status` is the answer's code."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """`headers` keep order and case; `version` is `1.0` or `1.1`; `target` is as sent."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def line(self) -> str:
        """The request line."""
        return f"{self.method} {self.target} HTTP/{self.version}"

    @property
    def path(self) -> str:
        path = self.target.partition("?")[0]
        if path.startswith("http://"):
            path = "/" + path[7:].partition("/")[2]
        return path

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str, default: str = "") -> str:
        """The first header of that name (lower case)."""
        return next((value for key, value in self.headers if key.lower() == name), default)

    @property
    def keep_alive(self) -> bool:
        tokens = self.header("connection").lower()
        return "keep-alive" in tokens if self.version == "1.0" else "close" not in tokens


class RequestParser:
    """One connection's requests, pipelined ones included."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._wants_continue = False

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return not self._buffer and self._head is None

    def take_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body; asked once per request."""
        wanted, self._wants_continue = self._wants_continue, False
        return wanted

    def feed(self, data: bytes) -> Iterator[Request]:
        """The requests completed by `data`. Raises BadHttp; the connection is unusable then."""
        self._buffer += data
        while True:
            if self._head is None and not self._take_head():
                return
            assert self._head is not None
            body = self._take_body(self._head)
            if body is None:
                return
            head, self._head = self._head, None
            self._wants_continue = False
            yield Request(head.method, head.target, head.version, head.headers, body) if body else head

    def _take_head(self) -> bool:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _LARGEST_HEAD:
                raise BadHttp("headers too large", 431)
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[0].isalpha():
            raise BadHttp("malformed request line")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise BadHttp("malformed header")
            headers.append((name, value.strip()))
        self._head = Request(words[0], words[1], words[2][5:], tuple(headers))
        self._wants_continue = self._head.header("expect").lower() == "100-continue"
        return True

    def _take_body(self, head: Request) -> bytes | None:
        if head.header("transfer-encoding").lower().endswith("chunked"):
            return self._take_chunks()
        text = head.header("content-length", "0")
        if not text.isdigit():
            raise BadHttp("malformed content length")
        length = int(text)
        if length > _LARGEST_BODY:
            raise BadHttp("body too large", 413)
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _take_chunks(self) -> bytes | None:
        body, at = bytearray(), 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return None
            size_text = bytes(self._buffer[at:end]).partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError as error:
                raise BadHttp("malformed chunk") from error
            if size < 0 or len(body) + size > _LARGEST_BODY:
                raise BadHttp("body too large", 413)
            if size == 0:
                final = self._buffer.find(b"\r\n\r\n", end)
                if final < 0:
                    return None
                del self._buffer[: final + 4]
                return bytes(body)
            if len(self._buffer) < end + 2 + size + 2:
                return None
            body += self._buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
