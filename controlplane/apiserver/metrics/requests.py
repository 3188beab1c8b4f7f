"""What is counted of each request: an observer of the core, with kube-apiserver's metric names and labels (v1.32)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from controlplane.apiserver.flowcontrol.gate import WaitObserved
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.metrics.series import (
    Counter,
    Description,
    Gauge,
    Histogram,
    Labels,
    Series,
    exponential,
)
from controlplane.apiserver.passage import Passage
from controlplane.apiserver.registry.requests import PatchType
from controlplane.apiserver.routing import RequestInfo

COMPONENT = "apiserver"
_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_SLI_SECONDS = (
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_SIZES = exponential(1000, 10, 7)
_WAIT_SECONDS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_VERBS = {
    "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "get": "GET", "list": "LIST",
    "watch": "WATCH", "deletecollection": "DELETECOLLECTION", "post": "POST", "put": "PUT", "head": "GET",
}  # fmt: skip
_CONNECT = frozenset({"attach", "exec", "portforward", "proxy"})
_READING = frozenset({"GET", "LIST", "WATCH"})
RESOURCE_LABELS = ("group", "version", "resource", "subresource", "scope", "component")


_Key = tuple[str, bool, bool, str, str, str, str, bool, bool, int]
"""Verb, apply, dry run, group, version, resource, subresource (or path), named, in a namespace, code."""


class _Tally:
    """All that is counted of requests with the same labels: one look-up on the way, several series when asked."""

    __slots__ = ("labels", "seconds", "seconds_sum", "sizes", "sizes_sum", "sli", "sli_sum")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.seconds = [0] * (len(_SECONDS) + 1)
        self.sli = [0] * (len(_SLI_SECONDS) + 1)
        self.sizes = [0] * (len(_SIZES) + 1)
        self.seconds_sum = self.sli_sum = self.sizes_sum = 0.0


class RequestMetrics:
    """See `passage.Observer`. `has_kind` says whether a resource is served: unknown ones are counted without a name,
    so that clients cannot make up labels."""

    def __init__(self, has_kind: Callable[[RequestInfo], bool]) -> None:
        self._has_kind = has_kind
        self._tallies: dict[_Key, _Tally] = {}
        self._streams: dict[Labels, float] = {}
        self._long_running: dict[Labels, float] = {}
        self._open: dict[int, Labels] = {}
        self._in_flight = {"mutating": 0, "readOnly": 0}
        self._users: dict[str, int] = {}
        self.authentications: dict[Labels, float] = {}
        self._authorizations: dict[str, int] = {}
        self._waits = Histogram(
            Description(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "[BETA] Time requests waited for their turn, in seconds.",
                ("execute", "flow_schema", "priority_level"),
            ),
            _WAIT_SECONDS,
        )

    def authenticated(self, result: str) -> None:
        """Somebody was found out or refused: `success` or `failure`."""
        self.authentications[result,] = self.authentications.get((result,), 0.0) + 1

    def received(self, passage: Passage) -> None:
        if not passage.is_long_running:
            self._in_flight[_request_kind(passage)] += 1

    def begun(self, passage: Passage) -> None:
        if not passage.is_long_running:
            return
        # Kept, as the resource may be served no more when the stream ends.
        labels = self._open[id(passage)] = self._labels(passage)
        self._long_running[labels] = self._long_running.get(labels, 0) + 1

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        if passage.is_long_running:
            self._end_stream(passage, response)
            return
        self._in_flight[_request_kind(passage)] -= 1
        tally = self._tally(passage)
        seconds = passage.seconds
        tally.seconds[bisect_left(_SECONDS, seconds)] += 1
        tally.seconds_sum += seconds
        seconds -= passage.waited
        tally.sli[bisect_left(_SLI_SECONDS, seconds)] += 1
        tally.sli_sum += seconds
        tally.sizes[bisect_left(_SIZES, passage.size)] += 1
        tally.sizes_sum += passage.size
        decision = passage.remarks.annotations.get("authorization.k8s.io/decision", "")
        self._authorizations[decision] = self._authorizations.get(decision, 0) + 1
        name = passage.request.user.name
        known = name if name in _SYSTEM_USERS else _user_class(name)
        self._users[known] = self._users.get(known, 0) + 1

    def waited(self, wait: WaitObserved) -> None:
        self._waits.observe((str(wait.dispatched).lower(), wait.schema, wait.level), wait.seconds)

    def series(self) -> Sequence[Series]:
        """Everything as it stands now."""
        return [
            *request_series(self._tallies, self._streams),
            self._waits,
            *self._gauges(),
            *self._decisions(),
        ]

    def _decisions(self) -> Sequence[Series]:
        authenticated = Counter(
            Description(
                "authentication_attempts",
                "[ALPHA] Requests by whether it was found out who asks.",
                ("result",),
            )
        )
        authenticated.values.update(self.authentications)
        authorized = Counter(
            Description(
                "authorization_attempts_total", "[ALPHA] Requests by whether they are allowed.", ("result",)
            )
        )
        for decision, result in (("allow", "allowed"), ("forbid", "denied")):
            authorized.values[result,] = float(self._authorizations.get(decision, 0))
        return authenticated, authorized

    def _gauges(self) -> Sequence[Series]:
        long_running = Gauge(
            Description(
                "apiserver_longrunning_requests",
                "[STABLE] Watches, streams and tunnels that are open now.",
                ("verb", *RESOURCE_LABELS),
            ),
            lambda: self._long_running,
        )
        in_flight = Gauge(
            Description(
                "apiserver_current_inflight_requests",
                "[STABLE] Requests in work now, by kind.",
                ("request_kind",),
            ),
            lambda: {(kind,): float(count) for kind, count in self._in_flight.items()},
        )
        users = Counter(
            Description(
                "authenticated_user_requests", "[ALPHA] Requests by class of user name.", ("username",)
            )
        )
        users.values.update({(name,): float(count) for name, count in self._users.items()})
        return long_running, in_flight, users

    def _end_stream(self, passage: Passage, response: ApiResponse) -> None:
        labels = self._open.pop(id(passage), None)
        if labels is None:
            labels = self._labels(passage)  # It was refused before there was a stream.
        else:
            self._long_running[labels] -= 1
        counted = (*labels, str(passage.code))
        self._streams[counted] = self._streams.get(counted, 0) + 1

    def _tally(self, passage: Passage) -> _Tally:
        info = passage.info
        is_apply = info.verb == "patch" and passage.request.headers.get("content-type", "").startswith(
            PatchType.APPLY
        )
        key: _Key = (
            info.verb, is_apply, "dryRun" in passage.query, info.group, info.version, info.resource,
            info.subresource if info.is_resource else info.path, info.name != "", info.namespace != "", passage.code,
        )  # fmt: skip
        found = self._tallies.get(key)
        if found is None:
            labels = self._labels(passage)
            if labels[3] == "" and (info.resource or labels[4] == ""):
                # Neither a served resource nor a known path: all of them together, whatever the client made up.
                key = (info.verb, is_apply, key[2], "", "", "", "", False, False, passage.code)
                found = self._tallies.get(key)
        if found is None:
            dry_run = "All" if key[2] else ""
            found = self._tallies[key] = _Tally((labels[0], dry_run, *labels[1:], str(passage.code)))
        return found

    def _labels(self, passage: Passage) -> Labels:
        """Verb, group, version, resource, subresource, scope and component."""
        info, verb = passage.info, _verb(passage)
        if not info.is_resource:
            path = info.path if info.path in _KNOWN_PATHS else ""
            return (verb, "", "", "", path, "", COMPONENT)
        if not self._has_kind(info):
            return (verb, "", "", "", "", "", COMPONENT)
        return (verb, info.group, info.version, info.resource, info.subresource, _scope(info), COMPONENT)


def request_series(tallies: Mapping[_Key, _Tally], streams: Mapping[Labels, float]) -> Sequence[Series]:
    """The series about requests that are over, from what was counted of them."""
    requests = Counter(
        Description(
            "apiserver_request_total",
            "[STABLE] Requests by verb, dry run, resource, scope, component and HTTP code.",
            ("verb", "dry_run", *RESOURCE_LABELS, "code"),
        )
    )
    seconds = Histogram(
        Description(
            "apiserver_request_duration_seconds",
            "[STABLE] Time until the answer was complete, in seconds.",
            ("verb", "dry_run", *RESOURCE_LABELS),
        ),
        _SECONDS,
    )
    sli = Histogram(
        Description(
            "apiserver_request_sli_duration_seconds",
            "[BETA] Time until the answer was complete without the time in queues, in seconds.",
            ("verb", *RESOURCE_LABELS),
        ),
        _SLI_SECONDS,
    )
    sizes = Histogram(
        Description(
            "apiserver_response_sizes", "[STABLE] Bytes of complete answers.", ("verb", *RESOURCE_LABELS)
        ),
        _SIZES,
    )
    for tally in tallies.values():
        verb, dry_run, *resource, code = tally.labels
        requests.add((verb, dry_run, *resource, code), sum(tally.seconds))
        seconds.merge((verb, dry_run, *resource), tally.seconds, tally.seconds_sum)
        sli.merge((verb, *resource), tally.sli, tally.sli_sum)
        if verb in _READING:
            sizes.merge((verb, *resource), tally.sizes, tally.sizes_sum)
    for (verb, *resource, code), count in streams.items():
        requests.add((verb, "", *resource, code), count)
    return requests, seconds, sli, sizes


_KNOWN_PATHS = frozenset(
    {"/healthz", "/livez", "/readyz", "/version", "/metrics", "/api", "/apis", "/openapi/v2", "/openapi/v3"}
)


def _scope(info: RequestInfo) -> str:
    if info.name:
        return "resource"
    return "namespace" if info.namespace else "cluster"


def _verb(passage: Passage) -> str:
    info = passage.info
    if info.is_resource and info.subresource in _CONNECT:
        return "CONNECT"
    if info.verb == "patch" and passage.request.headers.get("content-type", "").startswith(PatchType.APPLY):
        return "APPLY"
    return _VERBS.get(info.verb, "other")


def _request_kind(passage: Passage) -> str:
    return "readOnly" if passage.info.verb in ("get", "list", "watch", "head") else "mutating"


_SYSTEM_USERS = frozenset(
    {"system:anonymous", "system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"}
)


def _user_class(name: str) -> str:
    """Names of people as one, since labels must stay few; nodes are counted together too."""
    if name.startswith("system:node:"):
        return "system:node"
    return "email_id" if "@" in name else "other"
