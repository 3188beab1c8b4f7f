"""What clients asked a test's API server, as the server's own observer saw it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.passage import Passage


@dataclass(slots=True)
class Request:
    """One request. `code` 0 = still open."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    agent: str
    accept: str
    content_type: str
    user: str
    verb: str
    code: int = 0

    @property
    def line(self) -> str:
        """Method, path and query as on the wire, and the answer's code."""
        query = "?" + urlencode(self.query, safe="=/,:") if self.query else ""
        return f"{self.method} {self.path}{query} {self.code}"

    @property
    def short(self) -> str:
        return f"{self.method} {self.path}"

    def value(self, name: str) -> str:
        return dict(self.query).get(name, "")


@dataclass(slots=True)
class Asked:
    """Every request that came over the wire, in the order of arrival. See `passage.Observer`."""

    requests: list[Request] = field(default_factory=list)
    _open: dict[int, Request] = field(default_factory=dict)

    def received(self, passage: Passage) -> None:
        asked = passage.request
        if not asked.remote:
            return
        headers = asked.headers
        request = Request(
            asked.method, asked.path, tuple(asked.query), headers.get("user-agent", ""), headers.get("accept", ""),
            headers.get("content-type", ""), asked.user.name, passage.info.verb,
        )  # fmt: skip
        self._open[id(passage)] = request
        self.requests.append(request)

    def begun(self, passage: Passage) -> None:
        return None

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        request = self._open.pop(id(passage), None)
        if request is not None:
            request.code = passage.code

    def clear(self) -> None:
        self.requests.clear()

    def of(self, method: str, path: str) -> list[Request]:
        return [each for each in self.requests if (each.method, each.path) == (method, path)]

    def lines(self, *hidden: str) -> list[str]:
        """The requests as lines, without those whose path begins with one of `hidden`."""
        return [each.line for each in self._shown(hidden)]

    def methods(self, *hidden: str) -> list[str]:
        """Method and path only."""
        return [each.short for each in self._shown(hidden)]

    def agents(self) -> set[str]:
        return {each.agent for each in self.requests}

    def types(self, method: str) -> set[str]:
        """The content types that were sent with `method`."""
        return {each.content_type for each in self.requests if each.method == method}

    def failures(self) -> list[str]:
        """Requests at which the server failed: any of them is a defect of it."""
        return [each.line for each in self.requests if each.code == 500]

    def _shown(self, hidden: Iterable[str]) -> Iterator[Request]:
        return (each for each in self.requests if not each.path.startswith(tuple(hidden)))
