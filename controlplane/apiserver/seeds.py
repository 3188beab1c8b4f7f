"""The objects every cluster has from its first start, as values. Pure; the bootstrap plants them.

Namespaces, the system's priority classes, the ServiceCIDR of the server's own ranges, the levels and schemas of flow
control, one APIService for each version of each group that the server serves itself, and the role that lets viewers see
what pods use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from controlplane.apiserver.flowcontrol.dangling import dangling_condition
from controlplane.apiserver.registry import Seed
from controlplane.errors import Object
from controlplane.meta.timestamps import now
from controlplane.resources.apiregistration import API_SERVICE, PRIORITIES, local_api_service
from controlplane.resources.catalog import (
    CLUSTER_ROLE,
    FLOW_SCHEMA,
    NAMESPACE,
    PRIORITY_CLASS,
    PRIORITY_LEVEL,
    SERVICE_CIDR,
)
from controlplane.resources.flowcontrol.defaults import (
    AUTO_UPDATE_ANNOTATION,
    LEVEL_SPECS,
    MANDATORY,
    SCHEMA_SPECS,
    default_objects,
)
from controlplane.resources.kind import Kind
from controlplane.resources.metrics import GROUP as METRICS
from controlplane.resources.networking.service_cidr import DEFAULT_NAME, FINALIZER, READY
from controlplane.resources.scheduling import SYSTEM_CLASSES

_AGGREGATES = [f"rbac.authorization.k8s.io/aggregate-to-{role}" for role in ("admin", "edit", "view")]
_METRICS_READER: Object = {
    "metadata": {
        "name": "system:aggregated-metrics-reader",
        "labels": {"k8s-app": "metrics-server", **dict.fromkeys(_AGGREGATES, "true")},
    },
    "rules": [
        {"apiGroups": [METRICS], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ],
}
"""Comes with a metrics-server elsewhere: who may view pods may view what they use."""

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


def seeds(
    kinds: Iterable[Kind], service_cidrs: Sequence[IPv4Network | IPv6Network], moment: str
) -> list[Seed]:
    """What belongs to these served kinds. Without `service_cidrs` there is no ServiceCIDR. `moment` in RFC 3339."""
    found = [Seed(NAMESPACE, {"metadata": {"name": name}}) for name in NAMESPACES]
    found += [Seed(PRIORITY_CLASS, priority_class) for priority_class in SYSTEM_CLASSES.values()]
    if service_cidrs:
        found.append(Seed(SERVICE_CIDR, _service_cidr(service_cidrs, moment)))
    found += [_flow_control(PRIORITY_LEVEL, level) for level in default_objects(LEVEL_SPECS)]
    found += [_flow_control(FLOW_SCHEMA, _found(schema, moment)) for schema in default_objects(SCHEMA_SPECS)]
    served = dict.fromkeys(kind.api_version for kind in kinds)
    found += [
        Seed(API_SERVICE, local_api_service(version, PRIORITIES[version]), renew=True)
        for version in served
        if version in PRIORITIES
    ]
    found.append(Seed(CLUSTER_ROLE, _METRICS_READER))
    planted = {(kind.group, kind.plural) for kind in kinds}
    return [seed for seed in found if (seed.kind.group, seed.kind.plural) in planted]


def kept_seeds(kinds: Iterable[Kind]) -> list[Seed]:
    """Those that come back at once when somebody deletes them, and whose specs stay as they are."""
    kept = {id(kind) for kind in (NAMESPACE, PRIORITY_LEVEL, FLOW_SCHEMA, API_SERVICE)}
    return [seed for seed in seeds(kinds, (), now()) if id(seed.kind) in kept]


def _flow_control(kind: Kind, obj: Object) -> Seed:
    """Mandatory ones are always as they were; the others may be taken over by who says so in the annotation."""
    mandatory = obj["metadata"]["name"] in MANDATORY
    return Seed(kind, obj, renew=True, spares=None if mandatory else _is_taken_over)


def _is_taken_over(present: Object) -> bool:
    metadata = present["metadata"]
    told = (metadata.get("annotations") or {}).get(AUTO_UPDATE_ANNOTATION)
    if told in ("true", "false"):
        return bool(told == "false")
    return int(metadata.get("generation") or 1) > 1


def _service_cidr(networks: Sequence[IPv4Network | IPv6Network], moment: str) -> Object:
    condition = {
        "type": READY,
        "status": "True",
        "lastTransitionTime": moment,
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
    }
    return {
        "metadata": {"name": DEFAULT_NAME, "finalizers": [FINALIZER]},
        "spec": {"cidrs": [str(network) for network in networks]},
        "status": {"conditions": [condition]},
    }


def _found(schema: Object, moment: str) -> Object:
    """With what the status says of a schema whose priority level exists."""
    level = schema["spec"]["priorityLevelConfiguration"]["name"]
    condition = dangling_condition(level, exists=True, moment=moment)
    return {**schema, "status": {"conditions": [condition]}}
