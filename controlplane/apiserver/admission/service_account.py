"""ServiceAccount: every pod runs with an account of its namespace, `default` when it names none."""

from __future__ import annotations

import asyncio
import random

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation

DEFAULT_ACCOUNT = "default"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
_TRIES = 10
"""Looks for the account `default`, which a controller makes a moment after its namespace."""


class ServiceAccountAdmission:
    """See `plugin.AdmissionPlugin`. `pause` is the time in seconds between two looks, doubled at random."""

    def __init__(self, pause: float = 0.1) -> None:
        self._pause = pause

    async def admit(self, request: AdmissionRequest) -> None:
        if (
            request.operation is not Operation.CREATE
            or (request.kind.group, request.kind.plural, request.subresource) != ("", "pods", "")
            or request.obj is None
            or MIRROR_ANNOTATION in (request.obj["metadata"].get("annotations") or {})
        ):
            return
        spec = request.obj.setdefault("spec", {})
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT_ACCOUNT
        spec["serviceAccountName"] = spec["serviceAccount"] = account
        if not await self._exists(request, account):
            raise request.forbid(
                f"error looking up service account {request.namespace}/{account}: "
                f'serviceaccount "{account}" not found'
            )

    async def _exists(self, request: AdmissionRequest, account: str) -> bool:
        tries = _TRIES if account == DEFAULT_ACCOUNT else 1
        for number in range(tries):
            if number:
                await asyncio.sleep(self._pause * random.uniform(1.0, 2.0))
            if await request.lookup("", "serviceaccounts", request.namespace, account) is not None:
                return True
        return False
