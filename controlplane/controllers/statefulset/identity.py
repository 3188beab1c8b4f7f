"""The numbered pods of a StatefulSet: their names, labels, host names and volumes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from controlplane.controllers.statefulset.claims import claim_name, templates
from controlplane.errors import Object
from controlplane.meta.objects import dig, labels, name, namespace
from controlplane.meta.pod_templates import pod_from
from controlplane.resources.catalog import STATEFUL_SET

POD_NAME_LABEL = "statefulset.kubernetes.io/pod-name"
POD_INDEX_LABEL = "apps.kubernetes.io/pod-index"
REVISION_LABEL = "controller-revision-hash"
"""Of a StatefulSet's pods it holds the whole name of the ControllerRevision."""

_NUMBERED = re.compile(r"(.*)-([0-9]+)", re.DOTALL).fullmatch
_INT32 = 2**31


def ordinal(pod: Object) -> int:
    """The number at the end of the pod's name; -1 if there is none."""
    return _parsed(name(pod))[1]


def is_member(stateful_set: Object, pod: Object) -> bool:
    """Whether the pod's name is one the StatefulSet could have given."""
    return _parsed(name(pod))[0] == name(stateful_set)


def _parsed(pod_name: str) -> tuple[str, int]:
    match = _NUMBERED(pod_name)
    if match is None:
        return "", -1
    number = int(match[2])
    return match[1], number if number < _INT32 else -1


def first_ordinal(stateful_set: Object) -> int:
    return int(dig(stateful_set, "spec", "ordinals", "start", default=0))


def replicas(stateful_set: Object) -> int:
    return int(dig(stateful_set, "spec", "replicas", default=1))


def in_range(stateful_set: Object, number: int) -> bool:
    """Whether a pod of that number is one of the replicas wanted."""
    first = first_ordinal(stateful_set)
    return first <= number < first + replicas(stateful_set)


def new_pod(stateful_set: Object, template: Object, number: int, revision: str) -> Object:
    """The pod of that number from one revision's template."""
    pod = pod_from(template, STATEFUL_SET.api_version, STATEFUL_SET.kind, stateful_set)
    metadata, spec = pod["metadata"], pod["spec"]
    metadata["name"] = f"{name(stateful_set)}-{number}"
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        **_marks(metadata["name"], number),
        REVISION_LABEL: revision,
    }
    spec["hostname"] = metadata["name"]
    spec["subdomain"] = dig(stateful_set, "spec", "serviceName", default="")
    volumes = _volumes(stateful_set, spec.get("volumes") or (), number)
    if volumes:
        spec["volumes"] = volumes
    return pod


def _marks(pod_name: str, number: int) -> dict[str, str]:
    return {POD_NAME_LABEL: pod_name, POD_INDEX_LABEL: str(number)}


def _volumes(stateful_set: Object, given: Sequence[Object], number: int) -> list[Object]:
    claimed = [
        {
            "name": name(template),
            "persistentVolumeClaim": {"claimName": claim_name(stateful_set, template, number)},
        }
        for template in templates(stateful_set)
    ]
    names = {volume["name"] for volume in claimed}
    return [*claimed, *(volume for volume in given if volume["name"] not in names)]


def identity_matches(stateful_set: Object, pod: Object) -> bool:
    """Whether the labels that say who the pod is are right."""
    number = ordinal(pod)
    return (
        number >= 0
        and is_member(stateful_set, pod)
        and name(pod) == f"{name(stateful_set)}-{number}"
        and namespace(pod) == namespace(stateful_set)
        and _marks(name(pod), number).items() <= labels(pod).items()
    )


def storage_matches(stateful_set: Object, pod: Object) -> bool:
    """Whether the pod mounts the claims of its number."""
    volumes: Mapping[str, Object] = {
        volume["name"]: volume for volume in dig(pod, "spec", "volumes", default=())
    }
    return all(
        dig(volumes.get(name(template)), "persistentVolumeClaim", "claimName")
        == claim_name(stateful_set, template, ordinal(pod))
        for template in templates(stateful_set)
    )


def corrected(stateful_set: Object, pod: Object) -> Object:
    """The pod with the labels and volumes it should have."""
    number = ordinal(pod)
    metadata = {**pod["metadata"], "labels": {**labels(pod), **_marks(name(pod), number)}}
    spec = dict(pod["spec"])
    if not storage_matches(stateful_set, pod):
        spec["volumes"] = _volumes(stateful_set, spec.get("volumes") or (), number)
    return {**pod, "metadata": metadata, "spec": spec}
