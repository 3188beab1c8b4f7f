"""StorageObjectInUseProtection and PersistentVolumeClaimResize: claims and volumes are not lost while in use, and
grow only where their class says they can.
"""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.meta.quantity import Quantity
from controlplane.resources.core.persistent_volume import storage_class

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


class StorageObjectInUseProtection:
    """See `plugin.AdmissionPlugin`. Somebody else takes the finalizers away when nothing uses the object."""

    async def admit(self, request: AdmissionRequest) -> None:
        if request.obj is None:
            return
        if request.concerns("", "persistentvolumeclaims", Operation.CREATE):
            _add(request.obj, CLAIM_FINALIZER)
        elif request.concerns("", "persistentvolumes", Operation.CREATE):
            _add(request.obj, VOLUME_FINALIZER)


def _add(obj: Object, finalizer: str) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer not in finalizers:
        obj["metadata"]["finalizers"] = [*finalizers, finalizer]


class PersistentVolumeClaimResize:
    """See `plugin.ValidatingPlugin`."""

    async def validate(self, request: AdmissionRequest) -> None:
        new, old = request.obj, request.old
        if new is None or old is None or not request.concerns("", "persistentvolumeclaims", Operation.UPDATE):
            return
        if _size(new) <= _size(old):
            return
        if dig(old, "status", "phase") != "Bound":
            raise request.forbid("Only bound persistent volume claims can be expanded")
        if not await self._may_grow(request, new, old):
            raise request.forbid(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )

    async def _may_grow(self, request: AdmissionRequest, new: Object, old: Object) -> bool:
        wanted, before = storage_class(new), storage_class(old)
        if not wanted or not before or wanted != before:
            return False
        found = await request.lookup("storage.k8s.io", "storageclasses", "", wanted)
        return bool(found is not None and found.get("allowVolumeExpansion"))


def _size(claim: Object) -> Quantity:
    return Quantity.parse(str(dig(claim, "spec", "resources", "requests", "storage", default="0")))
