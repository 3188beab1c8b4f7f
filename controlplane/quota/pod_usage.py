"""What a pod uses, which quota it falls under by scope, and what it must say of itself (v1.32). Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta

from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.pods import is_finished
from controlplane.meta.quantity import Quantity
from controlplane.meta.timestamps import parse
from controlplane.quota.amounts import Amounts, add, largest, parsed
from controlplane.resources.core.resource_names import COMPUTE, is_extended
from controlplane.resources.podspec.qos import BEST_EFFORT, qos_class

COUNT = "count/pods"
_ONE = Quantity.of(1)
_HUGE_PAGES = "hugepages-"
_KNOWN = frozenset(
    {COUNT, "pods"} | {f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in COMPUTE}
)
_MUST_SAY = frozenset(
    {f"{prefix}{name}" for prefix in ("", "requests.", "limits.") for name in ("cpu", "memory")}
)


class PodEvaluator:
    """See `usage.Evaluator`."""

    def handles(self, operation: str) -> bool:
        return operation == "CREATE"

    def resources(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in _KNOWN or _is_huge(name) or _is_extended_request(name)]

    def constraints(self, required: Collection[str], pod: Object) -> None:
        """With a quota on cpu or memory every container must say how much it needs."""
        wanted = _MUST_SAY & set(required)
        missing: dict[str, set[str]] = {}
        spec = pod.get("spec") or {}
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            resources = container.get("resources") or {}
            said = _compute(parsed(resources.get("requests")), parsed(resources.get("limits")))
            for name in wanted - said.keys():
                missing.setdefault(name, set()).add(str(container.get("name", "")))
        if missing:
            parts = (f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))
            raise ValueError(f"must specify {'; '.join(parts)}")

    def usage(self, pod: Object, now: datetime) -> dict[str, Quantity]:
        """A pod that has ended counts as an object only."""
        used = {COUNT: _ONE}
        if not _runs(pod, now):
            return used
        return {**used, **_compute(_sum(pod, "requests"), _sum(pod, "limits"))}

    def in_scope(self, requirement: Object, pod: Object) -> bool:
        check = _SCOPES.get(str(requirement.get("scopeName", "")))
        return check is not None and check(pod, requirement)


def _runs(pod: Object, now: datetime) -> bool:
    """Whether it still uses anything: it has not ended, nor is its node late in letting it go."""
    if is_finished(pod):
        return False
    metadata = pod["metadata"]
    deleted = metadata.get("deletionTimestamp")
    grace = metadata.get("deletionGracePeriodSeconds")
    return not (deleted and grace is not None and now > parse(deleted) + timedelta(seconds=grace))


def _compute(requests: Amounts, limits: Amounts) -> dict[str, Quantity]:
    used = {"pods": _ONE}
    for name, amount in requests.items():
        if name in COMPUTE or name.startswith(_HUGE_PAGES):
            used[name] = used[f"requests.{name}"] = amount
        elif is_extended(name):
            used[f"requests.{name}"] = amount
    used.update({f"limits.{name}": amount for name, amount in limits.items() if name in COMPUTE})
    return used


def _sum(pod: Object, which: str) -> dict[str, Quantity]:
    """The most the pod's containers take at any moment of its life, and its overhead."""
    spec = pod.get("spec") or {}
    running: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        running = add(running, _of(container, which))
    beside: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        amounts = _of(container, which)
        if container.get("restartPolicy") == "Always":
            running, beside = add(running, amounts), add(beside, amounts)
            amounts = beside
        else:
            amounts = add(amounts, beside)
        peak = largest(peak, amounts)
    taken = largest(running, peak)
    overhead = parsed(spec.get("overhead"))
    if which == "limits":
        overhead = {name: amount for name, amount in overhead.items() if taken.get(name)}
    return add(taken, overhead)


def _of(container: Object, which: str) -> dict[str, Quantity]:
    return parsed((container.get("resources") or {}).get(which))


def _is_huge(name: str) -> bool:
    return name.startswith((_HUGE_PAGES, f"requests.{_HUGE_PAGES}"))


def _is_extended_request(name: str) -> bool:
    return name.startswith("requests.") and is_extended(name.removeprefix("requests."))


def _is_terminating(pod: Object) -> bool:
    deadline = dig(pod, "spec", "activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def _priority_class(pod: Object, requirement: Object) -> bool:
    """A requirement on the name of the pod's priority class, as a label selector has it."""
    name, values = dig(pod, "spec", "priorityClassName", default=""), requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return bool(name) and name in values
        case "NotIn":
            return not name or name not in values
        case "Exists":
            return bool(name)
        case "DoesNotExist":
            return not name
    return False


def _crosses_namespaces(pod: Object) -> bool:
    """Whether its pod affinity looks into other namespaces."""
    affinity = dig(pod, "spec", "affinity", default={})
    for kind in ("podAffinity", "podAntiAffinity"):
        terms = affinity.get(kind) or {}
        required = terms.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = terms.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        for term in (*required, *(entry.get("podAffinityTerm") or {} for entry in preferred)):
            if term.get("namespaces") or term.get("namespaceSelector") is not None:
                return True
    return False


_SCOPES: Mapping[str, Callable[[Object, Object], bool]] = {
    "Terminating": lambda pod, _: _is_terminating(pod),
    "NotTerminating": lambda pod, _: not _is_terminating(pod),
    "BestEffort": lambda pod, _: qos_class(pod) == BEST_EFFORT,
    "NotBestEffort": lambda pod, _: qos_class(pod) != BEST_EFFORT,
    "PriorityClass": _priority_class,
    "CrossNamespacePodAffinity": lambda pod, _: _crosses_namespaces(pod),
}
