"""X.509: a client certificate's common name is the user, its organizations are the groups.

TLS has checked the chain against all authorities that clients may come from, but not the dates: an expired certificate
is answered with 401, as Kubernetes does it, and not with a broken connection. Which of the authorities stands behind a
certificate is found out here, once per certificate.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.apiserver.authn.credentials import (
    CREDENTIAL_ID,
    AuthenticationError,
    Credentials,
    Identity,
)
from controlplane.apiserver.user import UserInfo

_KEPT = 1024
"""Certificates whose examination is remembered."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One certificate: its subject, its dates as seconds since the epoch, and why it is no client's ("" = it is)."""

    common_name: str
    organizations: tuple[str, ...]
    not_before: float
    not_after: float
    fault: str
    credential_id: str

    def check(self) -> None:
        """Raises AuthenticationError for what is wrong with it, or with the date."""
        if self.fault:
            raise AuthenticationError(self.fault)
        now = datetime.now(UTC)
        if not self.not_before <= now.timestamp() <= self.not_after:
            late = now.timestamp() > self.not_after
            told = datetime.fromtimestamp(self.not_after if late else self.not_before, UTC)
            raise AuthenticationError(
                "x509: certificate has expired or is not yet valid: current time "
                f"{now:%Y-%m-%dT%H:%M:%SZ} is {'after' if late else 'before'} {told:%Y-%m-%dT%H:%M:%SZ}"
            )


class ClientAuthority:
    """The authorities of a PEM file, as the signers of client certificates. Raises ValueError for a file without any.

    `alone`: TLS trusts these and no others, so it has found the way from the client to them, over intermediate
    certificates perhaps. Else a certificate must be signed by one of them. Examinations are remembered by the
    certificate's bytes, the oldest are forgotten.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self._signers = x509.load_pem_x509_certificates(path.read_bytes())
        self._alone = alone
        self._examined: OrderedDict[bytes, Examined] = OrderedDict()

    def examine(self, certificate: bytes) -> Examined:
        """Raises AuthenticationError for bytes that are no certificate."""
        known = self._examined.get(certificate)
        if known is None:
            known = self._examine(certificate)
            self._examined[certificate] = known
            if len(self._examined) > _KEPT:
                self._examined.popitem(last=False)
        return known

    def _examine(self, der: bytes) -> Examined:
        try:
            certificate = x509.load_der_x509_certificate(der)
            subject = certificate.subject
            names = [str(name.value) for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            groups = [str(name.value) for name in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
            signer = next((known for known in self._signers if _signed_by(certificate, known)), None)
            fault = _fault(certificate, signed=signer is not None or self._alone)
        except ValueError as error:
            raise AuthenticationError(f"x509: malformed certificate: {error}") from error
        chain = [certificate] if signer is None else [certificate, signer]
        return Examined(
            names[-1] if names else "",
            tuple(groups),
            max(cert.not_valid_before_utc for cert in chain).timestamp(),
            min(cert.not_valid_after_utc for cert in chain).timestamp(),
            fault,
            f"X509SHA256={hashlib.sha256(der).hexdigest()}",
        )


def _fault(certificate: x509.Certificate, *, signed: bool) -> str:
    if not signed:
        return "x509: certificate signed by unknown authority"
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    wanted = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if any(usage in usages for usage in wanted):
        return ""
    return "x509: certificate specifies an incompatible key usage"


def _signed_by(certificate: x509.Certificate, signer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


class CertificateAuthenticator:
    """Clients with a certificate of `authority`."""

    def __init__(self, authority: ClientAuthority) -> None:
        self._authority = authority

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if not credentials.certificate:
            return None
        found = self._authority.examine(credentials.certificate)
        found.check()
        if not found.common_name:
            return None
        extra = {CREDENTIAL_ID: (found.credential_id,)}
        return Identity(UserInfo(found.common_name, "", found.organizations, extra))
