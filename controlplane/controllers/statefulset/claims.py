"""The PersistentVolumeClaims of a StatefulSet's pods, and who owns them by the retention policy. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Object
from controlplane.meta.objects import clone, dig, labels, name, namespace
from controlplane.meta.owners import owner_reference, references
from controlplane.resources.catalog import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET


def templates(stateful_set: Object) -> Sequence[Object]:
    """`spec.volumeClaimTemplates`. Read-only."""
    found: Sequence[Object] = dig(stateful_set, "spec", "volumeClaimTemplates", default=())
    return found


def claim_name(stateful_set: Object, template: Object, number: int) -> str:
    return f"{name(template)}-{name(stateful_set)}-{number}"


def claim_names(stateful_set: Object, number: int) -> list[str]:
    return [claim_name(stateful_set, template, number) for template in templates(stateful_set)]


def may_be_claim_of(stateful_set: Object, claim: Object) -> bool:
    """Whether the claim has a name that one of the set's pods mounts."""
    for template in templates(stateful_set):
        prefix = f"{name(template)}-{name(stateful_set)}-"
        if name(claim).startswith(prefix) and name(claim)[len(prefix) :].isdecimal():
            return True
    return False


def new_claims(stateful_set: Object, number: int) -> list[Object]:
    """The claims of the pod of that number, as they are created."""
    chosen = dig(stateful_set, "spec", "selector", "matchLabels", default={})
    pod: Object = {"metadata": {"name": f"{name(stateful_set)}-{number}"}}
    result = []
    for template in templates(stateful_set):
        described = clone(template.get("metadata") or {})
        described.pop("creationTimestamp", None)
        claim: Object = {
            "apiVersion": PERSISTENT_VOLUME_CLAIM.api_version,
            "kind": PERSISTENT_VOLUME_CLAIM.kind,
            "metadata": {
                **described,
                "name": claim_name(stateful_set, template, number),
                "namespace": namespace(stateful_set),
                "labels": {**labels(template), **chosen},
            },
            "spec": clone(template.get("spec") or {}),
        }
        owned = owners(stateful_set, pod, claim, condemned=False)
        if owned:
            claim["metadata"]["ownerReferences"] = owned
        result.append(claim)
    return result


def owners(stateful_set: Object, pod: Object, claim: Object, *, condemned: bool) -> list[Object]:
    """The owner references the claim should have, those of others as they are.

    `condemned` means that the pod's number is beyond the replicas wanted.
    """
    policy = dig(stateful_set, "spec", "persistentVolumeClaimRetentionPolicy", default={})
    with_set = policy.get("whenDeleted") == "Delete"
    with_pod = policy.get("whenScaled") == "Delete" and condemned
    current = list(references(claim))
    kept = [each for each in current if not _is_ours(each, stateful_set, pod)]
    if any(each.get("controller") for each in kept):
        # Somebody else controls it: hands off.
        return kept
    if with_pod:
        kept.append(owner_reference(POD.api_version, POD.kind, pod))
    elif with_set:
        kept.append(owner_reference(STATEFUL_SET.api_version, STATEFUL_SET.kind, stateful_set))
    return kept


def _is_ours(reference: Object, stateful_set: Object, pod: Object) -> bool:
    """Also those of former objects of these names."""
    whom = (reference.get("kind"), reference.get("name"))
    return whom in ((POD.kind, name(pod)), (STATEFUL_SET.kind, name(stateful_set)))


def is_stale(stateful_set: Object, number: int, claim: Object) -> bool:
    """Whether the claim goes with a former pod of that number: the next one must wait until it has gone."""
    if dig(stateful_set, "spec", "persistentVolumeClaimRetentionPolicy", "whenScaled") != "Delete":
        return False
    former = f"{name(stateful_set)}-{number}"
    return any((each.get("kind"), each.get("name")) == (POD.kind, former) for each in references(claim))
