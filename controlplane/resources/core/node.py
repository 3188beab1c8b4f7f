"""Node: a machine that runs pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta import conditions
from controlplane.meta.names import label_value
from controlplane.meta.objects import dig, labels, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE, UNKNOWN, joined
from controlplane.resources.fieldpath import duplicate
from controlplane.resources.kind import Column, Kind, Subresource
from controlplane.resources.podspec.quantities import canonical
from controlplane.resources.podspec.scheduling import TAINT_EFFECTS
from controlplane.resources.rules import Field
from controlplane.resources.selectable import flag, selectable_fields

ROLE_PREFIX = "node-role.kubernetes.io/"
ROLE_LABEL = "kubernetes.io/role"


def _default(node: Object) -> None:
    spec = node.get("spec")
    if spec is None:
        spec = node["spec"] = {}
    # The single and the plural form are one value.
    if spec.get("podCIDR") and not spec.get("podCIDRs"):
        spec["podCIDRs"] = [spec["podCIDR"]]
    elif spec.get("podCIDRs") and not spec.get("podCIDR"):
        spec["podCIDR"] = spec["podCIDRs"][0]
    if node.get("status"):
        _complete_amounts(node["status"])


def _prepare_status(new: Object, old: Object) -> None:
    if new.get("status"):
        _complete_amounts(new["status"])


def _complete_amounts(status: Object) -> None:
    """Amounts as the API server stores them; all of the capacity is allocatable unless the node says otherwise."""
    canonical(status, "capacity")
    canonical(status, "allocatable")
    if status.get("allocatable") is None and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])


def _validate(node: Object) -> Sequence[Cause]:
    field = Field.root(node)
    spec = field["spec"]
    _taints(spec["taints"])
    ranges = spec["podCIDRs"]
    for pod_range in ranges:
        if not _is_range(pod_range.text):
            pod_range.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
    if len(ranges) > 2:
        ranges.invalid("may specify no more than one CIDR for each IP family")
    if spec["podCIDR"].present and len(ranges) and ranges.value[0] != spec["podCIDR"].value:
        ranges.invalid("podCIDRs[0] must match podCIDR")
    return field.causes


def _taints(taints: Field) -> None:
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        taint["key"].required().qualified_name()
        value = taint["value"]
        messages = label_value(value.text)
        if messages:
            value.invalid(";".join(messages))
        taint["effect"].required().one_of(*TAINT_EFFECTS)
        pair = (taint["key"].text, taint["effect"].text)
        if pair in seen:
            taint.fail(duplicate(taint.path, taint.value, "taints must be unique by key and effect pair"))
        seen.add(pair)


def _is_range(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    spec, before = field["spec"], Field.root(old)["spec"]
    for name_, what in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
        if before[name_].present and before[name_].value != spec[name_].value:
            spec[name_].forbidden(f'node updates may not change {what} except from "" to valid')
    return field.causes


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    seen: set[tuple[str, str]] = set()
    for address in status["addresses"]:
        pair = (address["type"].text, address["address"].text)
        if pair in seen:
            address.duplicate()
        seen.add(pair)
    _amounts(status)
    return field.causes


def _validate_create(node: Object) -> Sequence[Cause]:
    field = Field.root(node)
    _amounts(field["status"])
    return field.causes


def _amounts(status: Field) -> None:
    for name_ in ("capacity", "allocatable"):
        for _, amount in status[name_].entries():
            amount.quantity()


def _row(node: Object, now: datetime) -> Sequence[object]:
    info = dig(node, "status", "nodeInfo", default={})
    return (
        name(node),
        node_status(node),
        joined(roles(node)) or NONE,
        age(node, now),
        info.get("kubeletVersion", ""),
        _address(node, "InternalIP"),
        _address(node, "ExternalIP"),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    )


def node_status(node: Object) -> str:
    """`Ready`, `NotReady` or `Unknown`, with `,SchedulingDisabled` for a cordoned node."""
    ready = conditions.of(node, "Ready")
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if dig(node, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return joined(words)


def roles(node: Object) -> Iterable[str]:
    """The roles its labels name, sorted."""
    found = set()
    for key, value in labels(node).items():
        if key.startswith(ROLE_PREFIX):
            found.add(key.removeprefix(ROLE_PREFIX))
        elif key == ROLE_LABEL:
            found.add(value)
    return sorted(found - {""})


def _address(node: Object, type_: str) -> str:
    for address in dig(node, "status", "addresses", default=()):
        if address.get("type") == type_:
            return str(address.get("address", ""))
    return NONE


NODE = Kind(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    namespaced=False,
    storage="minions",
    short_names=("no",),
    columns=(
        NAME,
        Column("Status", description="The status of the node"),
        Column("Roles", description="The roles of the node"),
        AGE,
        Column("Version", documents="io.k8s.api.core.v1.NodeSystemInfo.kubeletVersion"),
        Column("Internal-IP", priority=1, documents="io.k8s.api.core.v1.NodeStatus.addresses"),
        Column("External-IP", priority=1, documents="io.k8s.api.core.v1.NodeStatus.addresses"),
        Column("OS-Image", priority=1, documents="io.k8s.api.core.v1.NodeSystemInfo.osImage"),
        Column("Kernel-Version", priority=1, documents="io.k8s.api.core.v1.NodeSystemInfo.kernelVersion"),
        Column(
            "Container-Runtime",
            priority=1,
            documents="io.k8s.api.core.v1.NodeSystemInfo.containerRuntimeVersion",
        ),
    ),
    row=_row,
    default=_default,
    prepare_status=_prepare_status,
    validate=_validate,
    validate_create=_validate_create,
    validate_update=_validate_update,
    validate_status=_validate_status,
    status=True,
    # A kubelet registers its machine with all it knows of it.
    status_at_creation=True,
    subresources=(Subresource("proxy", "NodeProxyOptions", ("create", "delete", "get", "patch", "update")),),
    fields=selectable_fields(named={"spec.unschedulable": flag("spec", "unschedulable")}),
)
