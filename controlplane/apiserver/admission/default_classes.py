"""DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the cluster's default."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.meta.objects import dig, name
from controlplane.resources.core.persistent_volume import BETA_CLASS_ANNOTATION
from controlplane.resources.networking.ingress import CLASS_ANNOTATION
from controlplane.resources.networking.ingress_class import DEFAULT_ANNOTATION
from controlplane.resources.storage.storage_class import is_default


class DefaultStorageClass:
    """See `plugin.AdmissionPlugin`. Of several default classes the newest counts."""

    async def admit(self, request: AdmissionRequest) -> None:
        claim = request.obj
        if not request.concerns("", "persistentvolumeclaims", Operation.CREATE) or claim is None:
            return
        annotations = dig(claim, "metadata", "annotations", default={})
        if BETA_CLASS_ANNOTATION in annotations or dig(claim, "spec", "storageClassName") is not None:
            return
        chosen = _newest(await request.listing("storage.k8s.io", "storageclasses", ""), is_default)
        if chosen is not None:
            claim["spec"]["storageClassName"] = name(chosen)


class DefaultIngressClass:
    """See `plugin.AdmissionPlugin`. Of several default classes the newest counts."""

    async def admit(self, request: AdmissionRequest) -> None:
        ingress = request.obj
        if not request.concerns("networking.k8s.io", "ingresses", Operation.CREATE) or ingress is None:
            return
        if dig(ingress, "spec", "ingressClassName") is not None:
            return
        if dig(ingress, "metadata", "annotations", default={}).get(CLASS_ANNOTATION):
            return
        classes = await request.listing("networking.k8s.io", "ingressclasses", "")
        chosen = _newest(classes, _is_default_ingress_class)
        if chosen is not None:
            ingress["spec"]["ingressClassName"] = name(chosen)


def _is_default_ingress_class(ingress_class: Object) -> bool:
    return bool(dig(ingress_class, "metadata", "annotations", default={}).get(DEFAULT_ANNOTATION) == "true")


def _newest(classes: Sequence[Object], wanted: Callable[[Object], bool]) -> Object | None:
    """The one made last; of those made in the same second the first by name."""
    found = sorted(filter(wanted, classes), key=name)
    return max(found, key=lambda obj: str(obj["metadata"].get("creationTimestamp", "")), default=None)
