"""What `pods/NAME/ephemeralcontainers` may change: containers are added, none is changed or removed
(upstream's `ValidatePodEphemeralContainersUpdate`, v1.32). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.meta import objects
from controlplane.resources.podspec.update import differences
from controlplane.resources.rules import Field, same

_MIRROR = "kubernetes.io/config.mirror"


def with_ephemeral_containers(new: Object, old: Object) -> Object:
    """The old pod with the new one's ephemeral containers; nothing else of it counts."""
    spec = {**old["spec"]}
    spec.pop("ephemeralContainers", None)
    containers = (new.get("spec") or {}).get("ephemeralContainers")
    if containers:
        spec["ephemeralContainers"] = containers
    return {**old, "metadata": {**old["metadata"]}, "spec": spec}


def validate_ephemeral_update(new: Object, old: Object) -> Sequence[Cause]:
    """What is wrong with the change, given that the new pod is valid by itself."""
    pod = Field.root(new)
    if _MIRROR in objects.annotations(old):
        pod.forbidden("static pods do not support ephemeral containers")
        return pod.causes
    containers = pod["spec"]["ephemeralContainers"]
    present = {container["name"].text: container.value for container in containers}
    for before in old["spec"].get("ephemeralContainers") or ():
        name = before["name"]
        if name not in present:
            containers.forbidden(f'existing ephemeral containers "{name}" may not be removed\n')
        elif not same(before, present[name]):
            changes = "\n".join(differences(before, present[name], "EphemeralContainer"))
            containers.forbidden(f'existing ephemeral containers "{name}" may not be changed\n{changes}')
    return pod.causes
