"""Warnings a kind has for accepted writes: what is deprecated or has no effect."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation


class KindWarnings:
    """See `plugin.ValidatingPlugin`. Refuses nothing."""

    async def validate(self, request: AdmissionRequest) -> None:
        if request.obj is None or request.subresource:
            return
        if request.operation in (Operation.CREATE, Operation.UPDATE):
            request.remarks.warnings.extend(request.kind.warnings(request.obj, request.old))
