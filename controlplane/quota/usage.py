"""What objects of each kind use: pods, Services, claims, and everything else by its number (v1.32). Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controlplane.errors import Object, qualified
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig
from controlplane.meta.quantity import ZERO, Quantity
from controlplane.quota.pod_usage import PodEvaluator

_ONE = Quantity.of(1)
_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
_STORAGE = "requests.storage"
_CLAIMS = "persistentvolumeclaims"
_LEGACY_CLASS = "volume.beta.kubernetes.io/storage-class"

_PLAIN_COUNTS = frozenset({"configmaps", "secrets", "replicationcontrollers", "resourcequotas"})
"""Kinds of the core group that may be counted by their bare name, too."""


class Evaluator(Protocol):
    """Knows what objects of one kind use."""

    def handles(self, operation: str) -> bool:
        """Whether a write of this sort (`CREATE`, `UPDATE`) can change what is used."""

    def resources(self, names: Iterable[str]) -> list[str]:
        """Those of the resources that objects of this kind use."""

    def constraints(self, required: Collection[str], obj: Object) -> None:
        """Raises ValueError when the object does not say what the quota needs to know."""

    def usage(self, obj: Object, now: datetime) -> dict[str, Quantity]:
        """What the object uses at `now` (aware). Raises ValueError for amounts that are none."""

    def in_scope(self, requirement: Object, obj: Object) -> bool:
        """Whether the object meets one scope requirement of a quota."""


@dataclass(frozen=True, slots=True)
class CountEvaluator:
    """Objects that are counted and nothing else: `count/<plural>.<group>`."""

    group: str
    plural: str

    @property
    def _names(self) -> tuple[str, ...]:
        counted = f"count/{qualified(self.plural, self.group)}"
        return (counted, self.plural) if not self.group and self.plural in _PLAIN_COUNTS else (counted,)

    def handles(self, operation: str) -> bool:
        return operation == "CREATE"

    def resources(self, names: Iterable[str]) -> list[str]:
        own = self._names
        return [name for name in names if name in own]

    def constraints(self, required: Collection[str], obj: Object) -> None:
        """Nothing needs to be said."""

    def usage(self, obj: Object, now: datetime) -> dict[str, Quantity]:
        return dict.fromkeys(self._names, _ONE)

    def in_scope(self, requirement: Object, obj: Object) -> bool:
        return False


class ServiceEvaluator:
    """See `Evaluator`. Node ports count as many as the Service will get."""

    _known = frozenset({"count/services", "services", "services.nodeports", "services.loadbalancers"})

    def handles(self, operation: str) -> bool:
        return operation in ("CREATE", "UPDATE")

    def resources(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._known]

    def constraints(self, required: Collection[str], service: Object) -> None:
        """Nothing needs to be said."""

    def usage(self, service: Object, now: datetime) -> dict[str, Quantity]:
        spec = service.get("spec") or {}
        ports = spec.get("ports") or ()
        node_ports = balancers = 0
        if spec.get("type") == "NodePort":
            node_ports = len(ports)
        elif spec.get("type") == "LoadBalancer":
            balancers = 1
            explicit = sum(bool(port.get("nodePort")) for port in ports)
            node_ports = explicit if spec.get("allocateLoadBalancerNodePorts") is False else len(ports)
        return {
            "count/services": _ONE,
            "services": _ONE,
            "services.nodeports": Quantity.of(node_ports),
            "services.loadbalancers": Quantity.of(balancers),
        }

    def in_scope(self, requirement: Object, service: Object) -> bool:
        return False


class ClaimEvaluator:
    """See `Evaluator`. Storage is counted altogether and for each storage class."""

    _known = frozenset({f"count/{_CLAIMS}", _CLAIMS, _STORAGE})

    def handles(self, operation: str) -> bool:
        return operation in ("CREATE", "UPDATE")

    def resources(self, names: Iterable[str]) -> list[str]:
        of_classes = tuple(f"{_CLASS_SUFFIX}{name}" for name in (_CLAIMS, _STORAGE))
        return [name for name in names if name in self._known or name.endswith(of_classes)]

    def constraints(self, required: Collection[str], claim: Object) -> None:
        """Nothing needs to be said."""

    def usage(self, claim: Object, now: datetime) -> dict[str, Quantity]:
        used = {f"count/{_CLAIMS}": _ONE, _CLAIMS: _ONE}
        text = dig(claim, "spec", "resources", "requests", "storage")
        storage = None if text is None else Quantity.parse(str(text))
        if storage is not None:
            used[_STORAGE] = storage
        storage_class = annotations_of(claim).get(_LEGACY_CLASS) or dig(
            claim, "spec", "storageClassName", default=""
        )
        if storage_class:
            used[f"{storage_class}{_CLASS_SUFFIX}{_CLAIMS}"] = _ONE
            if storage is not None:
                used[f"{storage_class}{_CLASS_SUFFIX}{_STORAGE}"] = storage
        return used

    def in_scope(self, requirement: Object, claim: Object) -> bool:
        return False


_SPECIAL: Mapping[tuple[str, str], Evaluator] = {
    ("", "pods"): PodEvaluator(),
    ("", "services"): ServiceEvaluator(),
    ("", _CLAIMS): ClaimEvaluator(),
}


def evaluator_of(group: str, plural: str) -> Evaluator:
    return _SPECIAL.get((group, plural)) or CountEvaluator(group, plural)


def requirements(quota: Object) -> list[Object]:
    """The quota's scopes and scope selector as one list."""
    spec = quota.get("spec") or {}
    plain = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return [*plain, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def matches(evaluator: Evaluator, quota: Object, obj: Object, names: Iterable[str]) -> bool:
    """Whether the quota, which limits the resources `names`, concerns the object."""
    if not evaluator.resources(names):
        return False
    return all(evaluator.in_scope(requirement, obj) for requirement in requirements(quota))


def used_by(
    evaluator: Evaluator, quota: Object, objs: Iterable[Object], now: datetime
) -> dict[str, Quantity]:
    """What `objs` of one kind use of what the quota limits, zeros included."""
    limited = evaluator.resources((quota.get("spec") or {}).get("hard") or ())
    used = dict.fromkeys(limited, ZERO)
    for obj in objs:
        if matches(evaluator, quota, obj, limited):
            usage = evaluator.usage(obj, now)
            used.update({name: used[name] + usage[name] for name in limited if name in usage})
    return used
