"""AlwaysDeny: refuses everything, for tests of what a refusal looks like. Off unless it is asked for."""

from __future__ import annotations

from controlplane.apiserver.admission.plugin import AdmissionRequest


class AlwaysDeny:
    """See `plugin.ValidatingPlugin`."""

    async def validate(self, request: AdmissionRequest) -> None:
        raise request.forbid("admission control is denying all modifications")
