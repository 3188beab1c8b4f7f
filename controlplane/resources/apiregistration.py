"""The kinds of `apiregistration.k8s.io/v1`: APIService, who serves one version of one API group (v1.32).

One without `spec.service` is served by this server itself; the others are for the aggregator to forward.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta import conditions
from controlplane.meta.names import dns1035_label, dns1123_subdomain, path_segment
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age, now
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.fieldpath import quoted
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

AVAILABLE = "Available"
AUTO_REGISTER_LABEL = "kube-aggregator.kubernetes.io/automanaged"
_GROUP_MAX, _VERSION_MAX = 20000, 1000

PRIORITIES: Mapping[str, tuple[int, int]] = {
    "v1": (18000, 1),
    "apps/v1": (17800, 15),
    "events.k8s.io/v1": (17750, 15),
    "authentication.k8s.io/v1": (17700, 15),
    "authorization.k8s.io/v1": (17600, 15),
    "autoscaling/v1": (17500, 15),
    "autoscaling/v2": (17500, 30),
    "batch/v1": (17400, 15),
    "certificates.k8s.io/v1": (17300, 15),
    "networking.k8s.io/v1": (17200, 15),
    "networking.k8s.io/v1beta1": (17200, 9),
    "policy/v1": (17100, 15),
    "rbac.authorization.k8s.io/v1": (17000, 15),
    "storage.k8s.io/v1": (16800, 15),
    "apiextensions.k8s.io/v1": (16700, 15),
    "admissionregistration.k8s.io/v1": (16700, 15),
    "scheduling.k8s.io/v1": (16600, 15),
    "coordination.k8s.io/v1": (16500, 15),
    "node.k8s.io/v1": (16300, 15),
    "discovery.k8s.io/v1": (16200, 15),
    "flowcontrol.apiserver.k8s.io/v1": (16100, 21),
    "metrics.k8s.io/v1beta1": (100, 100),
}
"""Group and version priority of what this server serves itself, by apiVersion. Versions that are not here get no
APIService of their own (upstream registers none for apiregistration.k8s.io either).
"""
CUSTOM_PRIORITY = (1000, 100)
"""Group and version priority of the groups of custom resources."""


def local_api_service(
    api_version: str, priority: tuple[int, int], *, auto_managed: str = "onstart"
) -> Object:
    """The APIService of a version this server serves itself. `auto_managed` is `true` for custom resources."""
    group, _, version = api_version.rpartition("/")
    spec: Object = {"version": version, "groupPriorityMinimum": priority[0], "versionPriority": priority[1]}
    if group:
        spec["group"] = group
    return {
        "metadata": {"name": f"{version}.{group}", "labels": {AUTO_REGISTER_LABEL: auto_managed}},
        "spec": spec,
    }


def local_condition(moment: str) -> Object:
    """What the status of a local APIService says. `moment` in RFC 3339."""
    return {
        "type": AVAILABLE,
        "status": "True",
        "lastTransitionTime": moment,
        "reason": "Local",
        "message": "Local APIServices are always available",
    }


def _default(service: Object) -> None:
    spec = service["spec"] = service.get("spec") or {}
    reference = spec.get("service")
    if reference is not None and reference.get("port") is None:
        reference["port"] = 443
    service["status"] = service.get("status") or {}


def _prepare_create(service: Object) -> None:
    """A version this server serves itself is available from the start; of the others nobody knows yet."""
    local = not service["spec"].get("service")
    service["status"] = {"conditions": [local_condition(now())]} if local else {}


def _validate(service: Object) -> Sequence[Cause]:
    field = Field.root(service)
    spec = field["spec"]
    group, version, reference = spec["group"], spec["version"], spec["service"]
    _own_name(field, group.text, version.text)
    if not group.present and version.text != "v1":
        group.required("only v1 may have an empty group and it better be legacy kube")
    group.check(dns1123_subdomain)
    for message in dns1035_label(version.text):
        version.invalid(message)
    for priority, maximum in (("groupPriorityMinimum", _GROUP_MAX), ("versionPriority", _VERSION_MAX)):
        number = spec[priority].of(spec[priority].value or 0)
        if not 0 < number.value <= maximum:
            number.invalid(f"must be positive and less than {maximum}")
    bundle, insecure = spec["caBundle"], spec["insecureSkipTLSVerify"]
    if reference.value is None:
        if bundle.present:
            bundle.of(f"{_size(bundle.text)} bytes").invalid("local APIServices may not have a caBundle")
        if insecure.value:
            insecure.invalid("local APIServices may not have insecureSkipTLSVerify")
        return field.causes
    reference["namespace"].required()
    reference["name"].required()
    port = reference["port"]
    if isinstance(port.value, int) and not 1 <= port.value <= 65535:
        port.invalid("port is not valid: must be between 1 and 65535, inclusive")
    if insecure.value and bundle.present:
        insecure.invalid("may not be true if caBundle is present")
    return field.causes


def _own_name(field: Field, group: str, version: str) -> None:
    own, wanted = field["metadata"]["name"], f"{version}.{group}"
    if own.present and not path_segment(own.text) and own.text != wanted:
        own.invalid(f'must be `spec.version+"."+spec.group`: {quoted(wanted)}')


def _size(text: str) -> int:
    try:
        return len(base64.b64decode(text))
    except binascii.Error:
        return len(text)


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    for condition in field["status"]["conditions"]:
        condition["status"].of(condition["status"].value or " ").one_of("True", "False", "Unknown")
    return field.causes


def _row(service: Object, moment: datetime) -> Sequence[object]:
    reference = dig(service, "spec", "service")
    where = f"{reference.get('namespace', '')}/{reference.get('name', '')}" if reference else "Local"
    condition = conditions.of(service, AVAILABLE)
    available = "Unknown"
    if condition is not None:
        available = str(condition.get("status", ""))
        if available != "True" and condition.get("reason"):
            available = f"{available} ({condition['reason']})"
    return name(service), where, available, age(service, moment)


API_SERVICE = Kind(
    group="apiregistration.k8s.io",
    version="v1",
    kind="APIService",
    plural="apiservices",
    singular="apiservice",
    namespaced=False,
    storage="apiregistration.k8s.io/apiservices",
    categories=("api-extensions",),
    columns=(
        NAME,
        Column("Service", description="The reference to the service that hosts this API endpoint."),
        Column("Available", description="Whether this service is available."),
        AGE,
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    validate=_validate,
    validate_status=_validate_status,
    validate_name=path_segment,
    status=True,
    status_metadata=(),
    fields=selectable_fields(),
)
