"""LimitRanger: containers get their namespace's default resources; what is out of bounds is refused.

Both a mutating plug-in (defaults) and a validating one (bounds, after everybody has edited the object). Texts are
upstream's (plugin/pkg/admission/limitranger, v1.32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.errors import Object
from controlplane.meta.objects import dig, is_being_deleted
from controlplane.meta.quantity import Quantity
from controlplane.quota.amounts import Amounts, add, largest, parsed
from controlplane.resources.core.limit_range import LIMIT_RANGE

ANNOTATION = "kubernetes.io/limit-ranger"
_PODS = ("", "pods")
_CLAIMS = ("", "persistentvolumeclaims")
_CONTAINERS = ("containers", "initContainers")


class LimitRanger:
    """See `plugin.AdmissionPlugin` and `plugin.ValidatingPlugin`."""

    def __init__(self, objects: StoredObjects) -> None:
        self._objects = objects

    async def admit(self, request: AdmissionRequest) -> None:
        if (
            not _concerned(request)
            or _resource(request) != _PODS
            or request.operation is not Operation.CREATE
        ):
            return
        assert request.obj is not None
        for limit_range in await self._objects.list(LIMIT_RANGE, request.namespace):
            _set_defaults(request.obj, _limits(limit_range))

    async def validate(self, request: AdmissionRequest) -> None:
        if not _concerned(request):
            return
        assert request.obj is not None
        for limit_range in await self._objects.list(LIMIT_RANGE, request.namespace):
            faults = list(_faults(request, _limits(limit_range)))
            if faults:
                raise request.forbid(_aggregate(faults))


def _aggregate(faults: Sequence[str]) -> str:
    """Several errors as Go's aggregate prints them: each once, in brackets."""
    different = list(dict.fromkeys(faults))
    return different[0] if len(different) == 1 else f"[{', '.join(different)}]"


def _resource(request: AdmissionRequest) -> tuple[str, str]:
    return request.kind.group, request.kind.plural


def _concerned(request: AdmissionRequest) -> bool:
    if request.subresource or request.obj is None:
        return False
    if _resource(request) == _PODS:
        # A pod's resources are set when it is created.
        return request.operation is Operation.CREATE
    if _resource(request) != _CLAIMS or request.operation not in (Operation.CREATE, Operation.UPDATE):
        return False
    return request.operation is Operation.CREATE or not is_being_deleted(request.obj)


def _limits(limit_range: Object) -> Sequence[Object]:
    found: Sequence[Object] = dig(limit_range, "spec", "limits", default=())
    return found


def _set_defaults(pod: Object, limits: Sequence[Object]) -> None:
    """Fill what containers do not say, and note it in the pod's annotation."""
    defaults: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for limit in limits:
        if limit.get("type") == "Container":
            defaults["requests"].update(limit.get("defaultRequest") or {})
            defaults["limits"].update(limit.get("default") or {})
    notes: list[str] = []
    for field, title in (("containers", "container"), ("initContainers", "init container")):
        for container in pod["spec"].get(field) or ():
            for which, noun in (("requests", "request"), ("limits", "limit")):
                names = _fill(container, which, defaults[which])
                if names:
                    notes.append(f"{', '.join(names)} {noun} for {title} {container.get('name', '')}")
    if notes:
        annotations = pod["metadata"].get("annotations") or {}
        pod["metadata"]["annotations"] = {
            **annotations,
            ANNOTATION: f"LimitRanger plugin set: {'; '.join(notes)}",
        }


def _fill(container: Object, which: str, defaults: Mapping[str, str]) -> list[str]:
    """Set the missing amounts; returns their names."""
    resources = container.setdefault("resources", {})
    given = resources.get(which) or {}
    missing = sorted(name for name in defaults if name not in given)
    if missing:
        resources[which] = {**given, **{name: defaults[name] for name in missing}}
    return missing


def _faults(request: AdmissionRequest, limits: Sequence[Object]) -> Iterator[str]:
    obj = request.obj
    assert obj is not None
    for limit in limits:
        kind = limit.get("type")
        if _resource(request) == _CLAIMS and kind == "PersistentVolumeClaim":
            yield from _claim_faults(obj, limit)
        elif _resource(request) == _PODS and kind == "Container":
            for field in _CONTAINERS:
                for container in obj["spec"].get(field) or ():
                    resources = container.get("resources") or {}
                    requests, bounds = parsed(resources.get("requests")), parsed(resources.get("limits"))
                    yield from _all_constraints("Container", limit, requests, bounds)
        elif _resource(request) == _PODS and kind == "Pod":
            yield from _all_constraints("Pod", limit, _of_pod(obj, "requests"), _of_pod(obj, "limits"))


def _claim_faults(claim: Object, limit: Object) -> Iterator[str]:
    requests = parsed(dig(claim, "spec", "resources", "requests", default={}))
    for resource, enforced in sorted(parsed(limit.get("min")).items()):
        asked = requests.get(resource)
        if asked is None:
            yield _none_specified("minimum", resource, "PersistentVolumeClaim", enforced, "request")
        elif asked < enforced:
            yield _out_of_bounds("minimum", resource, "PersistentVolumeClaim", enforced, "request", asked)
    for resource, enforced in sorted(parsed(limit.get("max")).items()):
        asked = requests.get(resource)
        if asked is None:
            yield _none_specified("maximum", resource, "PersistentVolumeClaim", enforced, "request")
        elif asked > enforced:
            yield _out_of_bounds("maximum", resource, "PersistentVolumeClaim", enforced, "request", asked)


def _all_constraints(kind: str, limit: Object, requests: Amounts, limits: Amounts) -> Iterator[str]:
    checks: tuple[tuple[str, Callable[[str, str, Quantity, Amounts, Amounts], str]], ...] = (
        ("min", _minimum),
        ("max", _maximum),
        ("maxLimitRequestRatio", _ratio),
    )
    for field, check in checks:
        for resource, enforced in sorted(parsed(limit.get(field)).items()):
            fault = check(kind, resource, enforced, requests, limits)
            if fault:
                yield fault


def _none_specified(bound: str, resource: str, kind: str, enforced: Quantity, what: str) -> str:
    return f"{bound} {resource} usage per {kind} is {enforced}.  No {what} is specified"


def _out_of_bounds(
    bound: str, resource: str, kind: str, enforced: Quantity, what: str, amount: Quantity
) -> str:
    return f"{bound} {resource} usage per {kind} is {enforced}, but {what} is {amount}"


def _minimum(kind: str, resource: str, enforced: Quantity, requests: Amounts, limits: Amounts) -> str:
    request, limit = requests.get(resource), limits.get(resource)
    if request is None:
        return _none_specified("minimum", resource, kind, enforced, "request")
    if request < enforced:
        return _out_of_bounds("minimum", resource, kind, enforced, "request", request)
    if limit is not None and limit < enforced:
        return _out_of_bounds("minimum", resource, kind, enforced, "limit", limit)
    return ""


def _maximum(kind: str, resource: str, enforced: Quantity, requests: Amounts, limits: Amounts) -> str:
    request, limit = requests.get(resource), limits.get(resource)
    if limit is None:
        return _none_specified("maximum", resource, kind, enforced, "limit")
    if limit > enforced:
        return _out_of_bounds("maximum", resource, kind, enforced, "limit", limit)
    if request is not None and request > enforced:
        return _out_of_bounds("maximum", resource, kind, enforced, "request", request)
    return ""


def _ratio(kind: str, resource: str, enforced: Quantity, requests: Amounts, limits: Amounts) -> str:
    request, limit = requests.get(resource), limits.get(resource)
    title = f"{resource} max limit to request ratio per {kind} is {enforced}"
    if not request:
        return f"{title}, but no request is specified or request is 0"
    if not limit:
        return f"{title}, but no limit is specified or limit is 0"
    if limit.nanos * 10**9 > enforced.nanos * request.nanos:
        return f"{title}, but provided ratio is {limit.nanos / request.nanos:f}"
    return ""


def _of_pod(pod: Object, which: str) -> dict[str, Quantity]:
    """The sum of the containers, or the largest init container where that is more.

    A resource that one of the containers does not speak of is left out, as if nobody did.
    """
    spec = pod["spec"]
    amounts = [parsed((item.get("resources") or {}).get(which)) for item in spec.get("containers") or ()]
    everywhere = set.intersection(*(set(item) for item in amounts)) if amounts else set()
    total: dict[str, Quantity] = {}
    for item in amounts:
        total = add(total, {name: amount for name, amount in item.items() if name in everywhere})
    for container in spec.get("initContainers") or ():
        initial = parsed((container.get("resources") or {}).get(which))
        is_sidecar = container.get("restartPolicy") == "Always"
        total = add(total, initial) if is_sidecar else largest(total, initial)
    return total
