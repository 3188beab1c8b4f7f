"""What is counted of each request: an observer of the core, with kube-apiserver's metric names and labels (v1.32)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

_COMPONENT = "apiserver"
_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_SLI_SECONDS = (
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_WAIT_SECONDS = (0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
_VERBS = {
    "create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "get": "GET", "list": "LIST",
    "watch": "WATCH", "deletecollection": "DELETECOLLECTION", "post": "POST", "put": "PUT", "head": "GET",
}  # fmt: skip
_CONNECT = frozenset({"attach", "exec", "portforward", "proxy"})
_READING = frozenset({"GET", "LIST", "WATCH"})
_RESOURCE = ("group", "version", "resource", "subresource", "scope", "component")


class RequestMetrics:
    """See `passage.Observer`. `has_kind` says whether a resource is served: unknown ones are counted without a name,
    so that clients cannot make up labels."""

    def __init__(self, has_kind: Callable[[RequestInfo], bool]) -> None:
        self._has_kind = has_kind
        self.requests = Counter(
            Description(
                "apiserver_request_total",
                "[STABLE] Requests by verb, dry run, resource, scope, component and HTTP code.",
                ("verb", "dry_run", *_RESOURCE, "code"),
            )
        )
        self.seconds = Histogram(
            Description(
                "apiserver_request_duration_seconds",
                "[STABLE] Time until the answer was complete, in seconds.",
                ("verb", "dry_run", *_RESOURCE),
            ),
            _SECONDS,
        )
        self.sli_seconds = Histogram(
            Description(
                "apiserver_request_sli_duration_seconds",
                "[BETA] Time until the answer was complete without the time in queues, in seconds.",
                ("verb", *_RESOURCE),
            ),
            _SLI_SECONDS,
        )
        self.sizes = Histogram(
            Description(
                "apiserver_response_sizes",
                "[STABLE] Bytes of complete answers.",
                ("verb", *_RESOURCE),
            ),
            exponential(1000, 10, 7),
        )
        self.long_running = Gauge(
            Description(
                "apiserver_longrunning_requests",
                "[STABLE] Watches, streams and tunnels that are open now.",
                ("verb", *_RESOURCE),
            )
        )
        self.in_flight = Gauge(
            Description(
                "apiserver_current_inflight_requests",
                "[STABLE] Requests in work now, by kind.",
                ("request_kind",),
            )
        )
        self.users = Counter(
            Description(
                "authenticated_user_requests", "[ALPHA] Requests by the user's group of names.", ("username",)
            )
        )
        self.waits = Histogram(
            Description(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "[BETA] Time requests waited for their turn, in seconds.",
                ("execute", "flow_schema", "priority_level"),
            ),
            _WAIT_SECONDS,
        )
        for kind in ("mutating", "readOnly"):
            self.in_flight.add((kind,), 0)

    @property
    def series(self) -> Sequence[Series]:
        return (
            self.requests, self.seconds, self.sli_seconds, self.sizes, self.long_running, self.in_flight,
            self.users, self.waits,
        )  # fmt: skip

    def received(self, passage: Passage) -> None:
        if not passage.is_long_running:
            self.in_flight.add((_request_kind(passage),), 1)

    def begun(self, passage: Passage) -> None:
        self.long_running.add((_verb(passage), *self._resource(passage.info)), 1)

    def ended(self, passage: Passage, response: ApiResponse) -> None:
        verb, resource = _verb(passage), self._resource(passage.info)
        is_stream = not isinstance(response.body, bytes) or response.tunnel is not None
        dry_run = "All" if "All" in passage.query.all("dryRun") else ""
        self.requests.add((verb, dry_run, *resource, str(passage.code)))
        if passage.is_long_running:
            if is_stream:
                self.long_running.add((verb, *resource), -1)
            return
        self.in_flight.add((_request_kind(passage),), -1)
        seconds = passage.seconds
        self.seconds.observe((verb, dry_run, *resource), seconds)
        self.sli_seconds.observe((verb, *resource), max(seconds - passage.waited, 0.0))
        self.users.add((_user_class(passage.request.user.name),))
        if verb in _READING:
            self.sizes.observe((verb, *resource), passage.size)

    def waited(self, wait: WaitObserved) -> None:
        self.waits.observe((str(wait.dispatched).lower(), wait.schema, wait.level), wait.seconds)

    def _resource(self, info: RequestInfo) -> Labels:
        if not info.is_resource:
            path = info.path if info.path in _KNOWN_PATHS else ""
            return ("", "", "", path, "", _COMPONENT)
        if not self._has_kind(info):
            return ("", "", "", "", "", _COMPONENT)
        return (info.group, info.version, info.resource, info.subresource, _scope(info), _COMPONENT)


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


def _user_class(name: str) -> str:
    """Names of the system as they are, all others as one: labels must stay few (upstream's compressUsername)."""
    if name in ("system:unsecured", "system:anonymous", "kubelet", "system:kube-controller-manager"):
        return name
    return "email_id" if "@" in name else "other"
