"""Signs approved certificate requests for the signers this cluster stands for."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from cryptography import x509

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.controllers.certificates.issuing import Signer
from controlplane.controllers.certificates.signers import SIGNERS
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import CERTIFICATE_SIGNING_REQUEST
from controlplane.resources.certificates import APPROVED, FAILED, conditions, decode


class CertificateSigningController:
    """Keys are names of requests."""

    def __init__(self, client: Client, informers: Informers, signer: Signer) -> None:
        self._client = client
        self._signer = signer
        self._requests = informers.of(CERTIFICATE_SIGNING_REQUEST)
        self._loop: Controller[str] = Controller("csrsigning", self._reconcile)
        self._requests.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._requests)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))

    async def _reconcile(self, key: str) -> None:
        request = self._requests.get("", key)
        if request is None or not conditions(request, APPROVED) or conditions(request, FAILED):
            return
        spec, status = request["spec"], request.get("status") or {}
        judge = SIGNERS.get(spec["signerName"])
        if status.get("certificate") or judge is None:
            return
        asked = x509.load_pem_x509_csr(decode(spec["request"]))
        usages = spec.get("usages") or []
        reason, fault = "SignerValidationFailure", judge(asked, usages)
        if not fault:
            try:
                pem = self._signer.sign(asked, usages, spec.get("expirationSeconds"), datetime.now(UTC))
            except ValueError as error:
                reason, fault = "SigningError", str(error)
            else:
                issued = {**status, "certificate": base64.b64encode(pem).decode()}
                await self._client.update_status(CERTIFICATE_SIGNING_REQUEST, {**request, "status": issued})
                return
        failed = {
            "type": FAILED, "status": "True", "reason": reason, "message": fault, "lastUpdateTime": now(),
        }  # fmt: skip
        refused = {**status, "conditions": [*(status.get("conditions") or ()), failed]}
        await self._client.update_status(CERTIFICATE_SIGNING_REQUEST, {**request, "status": refused})
