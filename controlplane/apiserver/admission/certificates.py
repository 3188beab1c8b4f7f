"""Certificate requests: who asks is written into them, and who approves or signs must be allowed to.

`CertificateRequester` runs last of the mutating plug-ins, since nothing may change what it writes. The others are
upstream's CertificateApproval, CertificateSigning and CertificateSubjectRestriction.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.authz import MASTERS, Attributes, Authorizer
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object
from controlplane.meta.objects import dig
from controlplane.resources.certificates import decode

_GROUP = "certificates.k8s.io"
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"


def _concerns(request: AdmissionRequest, operation: Operation, subresource: str) -> bool:
    return (
        request.kind.group == _GROUP
        and request.kind.plural == "certificatesigningrequests"
        and (request.operation, request.subresource) == (operation, subresource)
        and request.obj is not None
    )


class CertificateRequester:
    """Writes the asking user into a new request, whatever the client put there."""

    async def admit(self, request: AdmissionRequest) -> None:
        if not _concerns(request, Operation.CREATE, "") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        for field in ("username", "uid", "groups", "extra"):
            spec.pop(field, None)
        spec["username"] = request.user.name
        if request.user.uid:
            spec["uid"] = request.user.uid
        if request.user.groups:
            spec["groups"] = list(request.user.groups)
        if request.user.extra:
            spec["extra"] = {key: list(values) for key, values in request.user.extra.items()}


class CertificateSubjectRestriction:
    """Nobody becomes an administrator by a certificate request."""

    async def validate(self, request: AdmissionRequest) -> None:
        if not _concerns(request, Operation.CREATE, ""):
            return
        if dig(request.obj or {}, "spec", "signerName", default="") != _CLIENT_SIGNER:
            return
        try:
            asked = x509.load_pem_x509_csr(decode(dig(request.obj or {}, "spec", "request", default="")))
            names = asked.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        except ValueError as error:
            raise request.forbid(f"unable to parse the request: {error}") from error
        if any(entry.value == MASTERS for entry in names):
            raise request.forbid(f"use of {_CLIENT_SIGNER} signer with {MASTERS} group is not allowed")


class CertificatePermissions:
    """Approving needs the verb `approve` on the signer, writing the status the verb `sign`."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def validate(self, request: AdmissionRequest) -> None:
        old = request.old or {}
        signer = str(dig(old, "spec", "signerName", default=""))
        if _concerns(request, Operation.UPDATE, "approval"):
            verb, doing = "approve", "approve"
        elif _concerns(request, Operation.UPDATE, "status") and _changes(request.obj or {}, old):
            verb, doing = "sign", "sign"
        else:
            return
        if not await self._may(request.user, verb, signer):
            raise request.forbid(f'user not permitted to {doing} requests with signerName "{signer}"')

    async def _may(self, user: UserInfo, verb: str, signer: str) -> bool:
        """For that signer, or for all of its domain."""
        for name in (signer, f"{signer.partition('/')[0]}/*"):
            info = RequestInfo(verb, "", True, _GROUP, "v1", "", "signers", name)
            if (await self._authorizer.authorize(Attributes(user, info))).allowed:
                return True
        return False


def _changes(new: Object, old: Object) -> bool:
    return (new.get("status") or {}) != (old.get("status") or {})
