"""Pod: one or more containers that share a network. The kind itself; its rules are in `podspec`."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.resources.core.pod_columns import COLUMNS, row, row_conditions
from controlplane.resources.kind import Kind, Part, Subresource
from controlplane.resources.podspec.defaults import default_pod_only, default_spec
from controlplane.resources.podspec.ephemeral import validate_ephemeral_update, with_ephemeral_containers
from controlplane.resources.podspec.qos import qos_class
from controlplane.resources.podspec.spec import validate_spec
from controlplane.resources.podspec.update import validate_pod_update
from controlplane.resources.rules import Field
from controlplane.resources.selectable import at, flag, selectable_fields

_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")


def _default(pod: Object) -> None:
    if pod.get("spec") is None:
        pod["spec"] = {}
    default_spec(pod["spec"])
    default_pod_only(pod["spec"])
    _complete_addresses(pod)


def _complete_addresses(pod: Object) -> None:
    """The single and the plural form of addresses are one value."""
    status = pod.get("status") or {}
    for single, plural in (("podIP", "podIPs"), ("hostIP", "hostIPs")):
        if status.get(single) and not status.get(plural):
            status[plural] = [{"ip": status[single]}]
        elif status.get(plural) and not status.get(single):
            status[single] = status[plural][0].get("ip", "")


def _prepare_create(pod: Object) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod)}
    if pod["spec"].get("schedulingGates"):
        # The API server itself says why such a pod is not scheduled.
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": None,
                "lastTransitionTime": None,
            }
        ]


def _prepare_status(new: Object, old: Object) -> None:
    """The quality of service class follows from the spec and never changes."""
    qos = (old.get("status") or {}).get("qosClass")
    if qos:
        new.setdefault("status", {})["qosClass"] = qos
    _complete_addresses(new)


def _validate(pod: Object) -> Sequence[Cause]:
    field = Field.root(pod)
    validate_spec(field["spec"])
    return field.causes


def _validate_create(pod: Object) -> Sequence[Cause]:
    spec = Field.root(pod)["spec"]
    if len(spec["ephemeralContainers"]):
        spec["ephemeralContainers"].forbidden("cannot be set on create")
    if spec["nodeName"].present and len(spec["schedulingGates"]):
        spec["nodeName"].forbidden("cannot be set until all schedulingGates have been cleared")
    return spec.causes


def _take_ephemeral(proposed: Object, old: Object) -> Object:
    _default(proposed)
    return with_ephemeral_containers(proposed, old)


def _validate_ephemeral(new: Object, old: Object) -> Sequence[Cause]:
    return [*_validate(new), *validate_ephemeral_update(new, old)]


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    status = field["status"]
    status["phase"].one_of(*_PHASES)
    status["nominatedNodeName"].dns_subdomain()
    for address in status["podIPs"]:
        address["ip"].required().ip()
    if (
        status["podIP"].present
        and len(status["podIPs"])
        and status["podIPs"].value[0]["ip"] != status["podIP"].value
    ):
        status["podIPs"].forbidden("podIPs[0] must match podIP")
    _no_resurrection(field, Field.root(old))
    return field.causes


def _no_resurrection(pod: Field, old: Field) -> None:
    """A container that has ended for good must not run again."""
    policy = pod["spec"]["restartPolicy"].value
    if policy not in ("Never", "OnFailure"):
        return
    now = {state["name"].text: state for state in pod["status"]["containerStatuses"]}
    for before in old["status"]["containerStatuses"]:
        ended = before["state"]["terminated"]
        if ended.value is None or (policy == "OnFailure" and ended["exitCode"].value):
            continue
        current = now.get(before["name"].text)
        if current is not None and current["state"]["terminated"].value is None:
            current["state"].forbidden("may not be transitioned to non-terminated state")


POD = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    singular="pod",
    namespaced=True,
    short_names=("po",),
    categories=("all",),
    columns=COLUMNS,
    row=row,
    row_conditions=row_conditions,
    default=_default,
    prepare_create=_prepare_create,
    prepare_status=_prepare_status,
    validate=_validate,
    validate_create=_validate_create,
    validate_update=validate_pod_update,
    validate_status=_validate_status,
    status=True,
    status_metadata=("annotations", "finalizers", "labels"),
    parts={"ephemeralcontainers": Part(_take_ephemeral, _validate_ephemeral)},
    graceful=True,
    subresources=(
        Subresource("attach", "PodAttachOptions", ("create", "get")),
        Subresource("binding", "Binding", ("create",)),
        Subresource("ephemeralcontainers", "Pod", ("get", "patch", "update")),
        Subresource("eviction", "Eviction", ("create",), group="policy", version="v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
        Subresource("proxy", "PodProxyOptions", ("create", "delete", "get", "patch", "update")),
    ),
    fields=selectable_fields(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
        named={"spec.hostNetwork": flag("spec", "hostNetwork"), "status.podIPs": at("status", "podIP")},
    ),
)
