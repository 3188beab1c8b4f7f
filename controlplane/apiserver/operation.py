"""What the server has about itself: limits, counts, audit log and the list of requests, set up from settings.

Composed by `app.py`; the parts are `flowcontrol/`, `metrics/`, `audit/` and `request_log.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.apiserver import deadline, request_log
from controlplane.apiserver.audit.log import MEGABYTE, AuditLog
from controlplane.apiserver.audit.policy import load
from controlplane.apiserver.flowcontrol.dump import DUMP_LEVELS, dump_levels
from controlplane.apiserver.flowcontrol.gate import FairGate
from controlplane.apiserver.messages import ApiRequest, ApiResponse, typed
from controlplane.apiserver.metrics import exposition
from controlplane.apiserver.metrics.parts import queue_series
from controlplane.apiserver.metrics.requests import RequestMetrics
from controlplane.apiserver.metrics.series import Counter, Description, Gauge, Labels, Series
from controlplane.apiserver.nonresource import Page, version
from controlplane.apiserver.options import Query
from controlplane.apiserver.passage import Observer
from controlplane.apiserver.registry import Registry
from controlplane.apiserver.request_log import RequestLog
from controlplane.apiserver.routing import RequestInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSettings:
    """`request_timeout` in seconds. `max_requests_inflight` seats are shared out by priority level.

    With `audit_policy_file` events go to `audit_log_path` (None = standard output), rotated beyond `audit_log_max_size`
    megabytes (0 = never), with `audit_log_max_backup` old files kept.
    """

    request_timeout: float = deadline.DEFAULT_SECONDS
    max_requests_inflight: int = 200
    audit_policy_file: Path | None = None
    audit_log_path: Path | None = None
    audit_log_max_size: int = 100
    audit_log_max_backup: int = 10


class Operation:
    """See the module. Raises PolicyError and OSError for audit settings that cannot be used."""

    def __init__(self, settings: OperationSettings, registry: Registry) -> None:
        self.settings = settings
        self._registry = registry
        self.gate = FairGate(settings.max_requests_inflight, self._count)
        self.metrics = RequestMetrics(self._is_served)
        self.gate.on_wait = self.metrics.waited
        self.request_log = RequestLog()
        self.more_series: list[Callable[[], Sequence[Series]]] = [queue_series]
        self.audit: AuditLog | None = None
        if settings.audit_policy_file is not None:
            self.audit = AuditLog(
                load(settings.audit_policy_file),
                settings.audit_log_path,
                max_bytes=settings.audit_log_max_size * MEGABYTE,
                backups=settings.audit_log_max_backup,
            )

    @property
    def observers(self) -> Sequence[Observer]:
        plain: list[Observer] = [self.metrics, self.request_log]
        return plain if self.audit is None else [*plain, self.audit]

    def pages(self, health: Mapping[str, Mapping[str, bool]]) -> Mapping[tuple[str, ...], Page]:
        """The paths that show it all. `health` is filled by the health checks (`NonResources.healthy`)."""

        async def slis(request: ApiRequest, query: Query) -> ApiResponse:
            return exposition.expose(exposition.health_series(health), request.headers.get("accept", ""))

        async def metrics(request: ApiRequest, query: Query) -> ApiResponse:
            return exposition.expose(self._series(), request.headers.get("accept", ""), process=True)

        async def requests(request: ApiRequest, query: Query) -> ApiResponse:
            return self.request_log.answer(query)

        async def levels(request: ApiRequest, query: Query) -> ApiResponse:
            return typed(200, dump_levels(self.gate).encode(), "text/plain; charset=utf-8")

        return {
            ("metrics",): metrics,
            ("metrics", "slis"): slis,
            request_log.PATH: requests,
            DUMP_LEVELS: levels,
        }

    def close(self) -> None:
        if self.audit is not None:
            self.audit.close()

    def _series(self) -> Sequence[Series]:
        build = {
            "major": version()["major"], "minor": version()["minor"], "git_version": version()["gitVersion"],
            "platform": version()["platform"],
        }  # fmt: skip
        series: list[Series] = [
            *self.metrics.series(),
            *exposition.flow_series(self.gate),
            Gauge(
                Description(
                    "apiserver_storage_objects", "[STABLE] Objects kept, by resource.", ("resource",)
                ),
                self._stored,
            ),
            exposition.fixed("kubernetes_build_info", "[ALPHA] The version served.", build),
        ]
        for more in self.more_series:
            series += more()
        if self.audit is not None:
            events = Counter(Description("apiserver_audit_event_total", "[ALPHA] Audit events told."))
            events.add((), self.audit.events)
            levels = Counter(
                Description("apiserver_audit_level_total", "[ALPHA] Requests by audit level.", ("level",))
            )
            levels.values.update({(level,): float(n) for level, n in self.audit.levels.items()})
            series += [events, levels]
        return series

    def _stored(self) -> Mapping[Labels, float]:
        return {(resource,): float(count) for resource, count in self._registry.counts().items()}

    def _count(self, group: str, plural: str, namespace: str) -> int:
        kind = self._registry.kind_of(group, plural)
        return 0 if kind is None else self._registry.count(kind, namespace)

    def _is_served(self, info: RequestInfo) -> bool:
        return self._registry.kind_of(info.group, info.resource) is not None
