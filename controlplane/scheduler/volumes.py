"""PersistentVolumeClaims: a pod waits until the claims it mounts are bound, and goes where their volumes are. Pure.

Reasons and order are those of upstream's VolumeRestrictions and VolumeBinding (v1.32). Nothing is bound here: a claim
that waits for its first consumer keeps its pod waiting until a volume controller has bound it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from controlplane.errors import Object
from controlplane.meta.node_selection import term_matches
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import dig, is_being_deleted, name, uid
from controlplane.meta.owners import is_controlled_by
from controlplane.scheduler.snapshot import NodeInfo, PodInfo

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"

_NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
_LOST_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_WRONG_PLACE = "node(s) had volume node affinity conflict"
_ONE_POD = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


@dataclass(frozen=True, slots=True)
class Volumes:
    """Look-ups of claims by namespace and name, of volumes and of storage classes by name."""

    claim: Callable[[str, str], Object | None]
    volume: Callable[[str], Object | None]
    storage_class: Callable[[str], Object | None]

    def unmet(self, pod: PodInfo) -> str:
        """Why no node at all would do, in upstream's words; empty when the claims allow of trying."""
        immediate = False
        for claim_name, is_ephemeral in claim_names(pod):
            claim = self.claim(pod.namespace, claim_name)
            if claim is None:
                if is_ephemeral:
                    return (
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim "
                        f'"{claim_name}"'
                    )
                return f'persistentvolumeclaim "{claim_name}" not found'
            problem = _problem(claim, pod, is_ephemeral=is_ephemeral)
            if problem:
                return problem
            immediate = immediate or not (is_bound(claim) or self._waits(claim))
        return "pod has unbound immediate PersistentVolumeClaims" if immediate else ""

    def _waits(self, claim: Object) -> bool:
        """Whether the claim is only bound once a pod uses it."""
        if dig(claim, "spec", "volumeName"):
            return False
        class_name = dig(claim, "spec", "storageClassName", default="")
        found = self.storage_class(class_name) if class_name else None
        return bool(dig(found, "volumeBindingMode") == "WaitForFirstConsumer")

    def placement(self, pod: PodInfo) -> Callable[[NodeInfo], str] | None:
        """The check of single nodes: the reason against one, or an empty text. None for a pod without claims."""
        names = [claim_name for claim_name, _ in claim_names(pod)]
        if not names:
            return None
        claims = [claim for each in names if (claim := self.claim(pod.namespace, each)) is not None]
        alone = {name(claim) for claim in claims if _for_one_pod(claim)}
        volumes = [self.volume(claim["spec"]["volumeName"]) for claim in claims if is_bound(claim)]
        reason = ""
        if any(volume is None for volume in volumes):
            reason = _LOST_VOLUME
        elif len(volumes) < len(claims):
            reason = _NO_VOLUME
        present = [volume for volume in volumes if volume is not None]

        def check(node: NodeInfo) -> str:
            if alone and _is_used(node, pod, alone):
                return _ONE_POD
            if not all(_reaches(volume, node) for volume in present):
                return _WRONG_PLACE
            return reason

        return check


def claim_names(pod: PodInfo) -> Iterator[tuple[str, bool]]:
    """The claims the pod mounts, and whether each is one made for it alone."""
    volumes: Sequence[Object] = dig(pod.spec, "volumes", default=())
    for volume in volumes:
        if volume.get("persistentVolumeClaim"):
            yield volume["persistentVolumeClaim"].get("claimName", ""), False
        elif volume.get("ephemeral"):
            yield f"{pod.name}-{volume['name']}", True


def is_bound(claim: Object) -> bool:
    """Whether a volume controller has bound the claim for good."""
    return bool(dig(claim, "spec", "volumeName")) and BIND_COMPLETED in annotations_of(claim)


def _problem(claim: Object, pod: PodInfo, *, is_ephemeral: bool) -> str:
    subject = f'persistentvolumeclaim "{name(claim)}"'
    if dig(claim, "status", "phase") == "Lost":
        return f'{subject} bound to non-existent persistentvolume "{dig(claim, "spec", "volumeName", default="")}"'
    if is_being_deleted(claim):
        return f"{subject} is being deleted"
    if is_ephemeral and not is_controlled_by(claim, uid(pod.object)):
        return (
            f"PVC {pod.namespace}/{name(claim)} was not created for pod {pod.namespace}/{pod.name} "
            "(pod is not owner)"
        )
    return ""


def _for_one_pod(claim: Object) -> bool:
    return "ReadWriteOncePod" in dig(claim, "spec", "accessModes", default=())


def _is_used(node: NodeInfo, pod: PodInfo, claims: set[str]) -> bool:
    return any(
        other.namespace == pod.namespace and any(each in claims for each, _ in claim_names(other))
        for other in node.pods.values()
    )


def _reaches(volume: Object, node: NodeInfo) -> bool:
    required = dig(volume, "spec", "nodeAffinity", "required")
    if required is None:
        return True
    return any(term_matches(term, node.name, node.labels) for term in required.get("nodeSelectorTerms") or ())
