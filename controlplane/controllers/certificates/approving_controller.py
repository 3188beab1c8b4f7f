"""Approves nodes' requests for client certificates, when a SubjectAccessReview says that the asking user may."""

from __future__ import annotations

import logging

import orjson
from cryptography import x509

from controlplane.client.client import Client
from controlplane.client.controller import Controller
from controlplane.client.informer import Informers
from controlplane.controllers.certificates.signers import KUBELET_CLIENT, common_name, kubelet_client_fault
from controlplane.errors import Object
from controlplane.meta.objects import name
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import CERTIFICATE_SIGNING_REQUEST
from controlplane.resources.certificates import APPROVED, DENIED, conditions, decode

log = logging.getLogger(__name__)

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_SELF_TOLD = "Auto approving self kubelet client certificate after SubjectAccessReview."
_TOLD = "Auto approving kubelet client certificate after SubjectAccessReview."


class CertificateApprovingController:
    """Keys are names of requests."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._requests = informers.of(CERTIFICATE_SIGNING_REQUEST)
        self._loop: Controller[str] = Controller("csrapproving", self._reconcile)
        self._requests.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(self._requests)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._loop.queue.add(name(new))

    async def _reconcile(self, key: str) -> None:
        request = self._requests.get("", key)
        if request is None or (request.get("status") or {}).get("certificate"):
            return
        if conditions(request, APPROVED) or conditions(request, DENIED):
            return
        spec = request["spec"]
        if spec["signerName"] != KUBELET_CLIENT:
            return
        asked = x509.load_pem_x509_csr(decode(spec["request"]))
        if kubelet_client_fault(asked, spec.get("usages") or []):
            return
        tried = [("nodeclient", _TOLD)]
        if common_name(asked) == spec.get("username"):
            tried.insert(0, ("selfnodeclient", _SELF_TOLD))
        for subresource, message in tried:
            if await self._may(spec, subresource):
                await self._approve(request, message)
                return
        log.info(
            'recognized csr "%s" as [%s] but subject access review was not approved',
            key, " ".join(subresource for subresource, _ in tried),
        )  # fmt: skip

    async def _may(self, spec: Object, subresource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.get("username", ""),
                "uid": spec.get("uid", ""),
                "groups": spec.get("groups") or [],
                "extra": spec.get("extra") or {},
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "resource": "certificatesigningrequests",
                    "verb": "create",
                    "subresource": subresource,
                    "version": "*",
                },
            },
        }
        headers = {"content-type": "application/json"}
        answer = await self._client.raw("POST", _REVIEWS, headers=headers, body=orjson.dumps(review))
        return bool((orjson.loads(answer.body).get("status") or {}).get("allowed"))

    async def _approve(self, request: Object, message: str) -> None:
        moment = now()
        approval = {
            "type": APPROVED, "status": "True", "reason": "AutoApproved", "message": message,
            "lastUpdateTime": moment, "lastTransitionTime": moment,
        }  # fmt: skip
        status = request.get("status") or {}
        approved = {**status, "conditions": [*(status.get("conditions") or ()), approval]}
        await self._client.update(CERTIFICATE_SIGNING_REQUEST, {**request, "status": approved}, "approval")
