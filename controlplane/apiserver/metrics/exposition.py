"""/metrics and /metrics/slis in the text formats Prometheus reads. Called by the paths that are no resources."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from controlplane.apiserver.flowcontrol.gate import FairGate
from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.metrics.series import Counter, Description, Gauge, Labels, Series, collected

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_BY_SCHEMA = ("flow_schema", "priority_level")
_BY_LEVEL = ("priority_level",)


class _Collected:
    """What a registry of the Prometheus library asks for its families."""

    def __init__(self, series: Iterable[Series]) -> None:
        self._series = series

    def collect(self) -> Iterable[Metric]:
        return collected(self._series)


def expose(series: Iterable[Series], accept: str, *, process: bool = False) -> ApiResponse:
    """All series in the format `accept` prefers; with `process`, this process's CPU, memory and files as well."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(series))
    if process:
        ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return typed(200, encode(registry), content_type)


def flow_series(gate: FairGate) -> Sequence[Series]:
    """The gate's own counts, and its levels as they are now."""

    def by_level(value: Callable[[str], float]) -> Callable[[], Mapping[Labels, float]]:
        def source() -> Mapping[Labels, float]:
            return {(name,): value(name) for name in gate.levels}

        return source

    levels = gate.levels
    return (
        _counter(
            "apiserver_flowcontrol_dispatched_requests_total",
            "[BETA] Requests that got their turn.",
            _BY_SCHEMA,
            gate.dispatched,
        ),
        _counter(
            "apiserver_flowcontrol_rejected_requests_total",
            "[BETA] Requests that were sent away, by reason.",
            (*_BY_SCHEMA, "reason"),
            gate.rejected,
        ),
        Gauge(
            Description(
                "apiserver_flowcontrol_current_executing_requests",
                "[BETA] Requests of a level in work now.",
                _BY_LEVEL,
            ),
            by_level(lambda name: levels[name].executing),
        ),
        Gauge(
            Description(
                "apiserver_flowcontrol_current_inqueue_requests",
                "[BETA] Requests of a level that wait now.",
                _BY_LEVEL,
            ),
            by_level(lambda name: levels[name].waiting),
        ),
        Gauge(
            Description(
                "apiserver_flowcontrol_current_executing_seats",
                "[ALPHA] Seats of a level that are taken now.",
                _BY_LEVEL,
            ),
            by_level(lambda name: levels[name].occupied),
        ),
        Gauge(
            Description("apiserver_flowcontrol_nominal_limit_seats", "[BETA] Seats a level has.", _BY_LEVEL),
            by_level(lambda name: levels[name].config.seats),
        ),
    )


def _counter(
    name: str, text: str, labels: Sequence[str], tally: Tally[tuple[str, str]] | Tally[tuple[str, str, str]]
) -> Counter:
    counter = Counter(Description(name, text, labels))
    counter.values.update({key: float(value) for key, value in tally.items()})
    return counter


def health_series(healthy: Mapping[str, Mapping[str, bool]]) -> Sequence[Series]:
    """`kubernetes_healthcheck` for each check (by name) of each kind (healthz, livez, readyz)."""
    values: Mapping[Labels, float] = {
        (name, kind): float(good) for kind, checks in healthy.items() for name, good in checks.items()
    }
    text = "[STABLE] Whether a health check was passed when it was last looked at."
    return (Gauge(Description("kubernetes_healthcheck", text, ("name", "type")), lambda: values),)


def fixed(name: str, text: str, labels: Mapping[str, str]) -> Series:
    """A value of one, whose labels say something (build information)."""
    values: Mapping[Labels, float] = {tuple(labels.values()): 1.0}
    return Gauge(Description(name, text, tuple(labels)), lambda: values)
