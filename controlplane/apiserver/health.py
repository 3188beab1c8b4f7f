"""/livez, /readyz and /healthz: named checks in upstream's order, each with a path of its own.

Asked by the paths that are no resources. A check is a function that says what is wrong; nothing here knows of what.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.apiserver.options import Query
from controlplane.errors import NotFound, StatusError

log = logging.getLogger(__name__)

TEXT = "text/plain; charset=utf-8"
PATHS = ("healthz", "livez", "readyz")
READYZ = "readyz"

HealthCheck = Callable[[], Awaitable[str]]
"""Empty text = healthy, else the reason (for the log; only who asks for one check alone is told)."""


class Steps:
    """What a server does once while it starts, as health checks (upstream's post-start hooks)."""

    def __init__(self, names: Iterable[str]) -> None:
        self._done = dict.fromkeys(names, False)

    def done(self, *names: str) -> None:
        for name in names:
            if name not in self._done:
                raise KeyError(name)
            self._done[name] = True

    def checks(self) -> Mapping[str, HealthCheck]:
        def check(name: str) -> HealthCheck:
            async def is_done() -> str:
                return "" if self._done[name] else "not finished"

            return is_done

        return {name: check(name) for name in self._done}


class Health:
    """`checks` by name in the order they are told; `ready_only` are those that only /readyz has.

    `healthy` holds the last result of each check, by kind (`livez`) and name.
    """

    def __init__(self, checks: Mapping[str, HealthCheck], ready_only: Iterable[str] = ()) -> None:
        self.healthy: dict[str, dict[str, bool]] = {}
        self._checks = dict(checks)
        hidden = frozenset(ready_only)
        self._names = {
            path: [name for name in self._checks if path == READYZ or name not in hidden] for path in PATHS
        }

    @property
    def paths(self) -> list[str]:
        """All paths that are answered."""
        return [f"/{path}{name}" for path in PATHS for name in ("", *(f"/{n}" for n in self._names[path]))]

    async def answer(self, path: str, rest: Sequence[str], query: Query) -> ApiResponse:
        """`rest` are the segments behind the path: the name of one check. Raises NotFound."""
        if rest:
            return await self._one(path, "/".join(rest))
        excluded = set(query.all("exclude"))
        unknown = sorted(excluded.difference(self._names[path]))
        lines: list[str] = []
        failed: list[str] = []
        for name in self._names[path]:
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            reason = await self._check(path, name)
            if reason:
                failed.append(f"{name}: {reason}")
            lines.append(f"[-]{name} failed: reason withheld" if reason else f"[+]{name} ok")
        if unknown:
            quoted = ", ".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
        if failed:
            log.warning("%s check failed: %s", path, "; ".join(failed))
            return _plain(500, "\n".join([*lines, f"{path} check failed\n"]))
        if "verbose" in query:
            return _plain(200, "\n".join([*lines, f"{path} check passed\n"]))
        return _plain(200, "ok")

    async def _one(self, path: str, name: str) -> ApiResponse:
        if name not in self._names[path]:
            raise NotFound("the server could not find the requested resource")
        reason = await self._check(path, name)
        return _plain(500, f"internal server error: {reason}\n") if reason else _plain(200, "ok")

    async def _check(self, path: str, name: str) -> str:
        try:
            reason = await self._checks[name]()
        except (StatusError, OSError) as error:
            reason = str(error) or type(error).__name__
        self.healthy.setdefault(path, {})[name] = not reason
        return reason


def _plain(status: int, text: str) -> ApiResponse:
    told = typed(status, text.encode(), TEXT)
    return ApiResponse(told.status, {**told.headers, "X-Content-Type-Options": "nosniff"}, told.body)


START_STEPS = (
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapiv3-controller",
)
"""What /readyz tells of the start, by upstream's names, in its order."""
