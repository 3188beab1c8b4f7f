"""A certificate from a request: what the request says of names and keys, and what the signer allows of the rest. Pure.

As upstream's signing policy: usages are those of the request's object, not of what is asked inside it; no certificate
outlives its authority, and none can sign others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

BACKDATED = timedelta(minutes=5)
_SHORT = timedelta(hours=8)
_SHORTEST = timedelta(minutes=10)
_EXTENDED = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "ipsec end system": ObjectIdentifier("1.3.6.1.5.5.7.3.5"),
    "ipsec tunnel": ObjectIdentifier("1.3.6.1.5.5.7.3.6"),
    "ipsec user": ObjectIdentifier("1.3.6.1.5.5.7.3.7"),
    "microsoft sgc": ObjectIdentifier("1.3.6.1.4.1.311.10.3.3"),
    "netscape sgc": ObjectIdentifier("2.16.840.1.113730.4.1"),
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
}
_KEY_USAGES = {
    "cert sign": "key_cert_sign",
    "content commitment": "content_commitment",
    "crl sign": "crl_sign",
    "data encipherment": "data_encipherment",
    "decipher only": "decipher_only",
    "digital signature": "digital_signature",
    "encipher only": "encipher_only",
    "key agreement": "key_agreement",
    "key encipherment": "key_encipherment",
    "signing": "digital_signature",
}


@dataclass(frozen=True, slots=True)
class Signer:
    """An authority that signs requests for at most `longest`."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    longest: timedelta = timedelta(days=365)

    @classmethod
    def load(cls, directory: Path) -> Signer:
        """The cluster's own authority (`ca.crt`, `ca.key`). Raises ValueError, OSError."""
        certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"{directory / 'ca.key'}: expected an EC or RSA key")
        return cls(certificate, key)

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        usages: Sequence[str],
        seconds: int | None,
        now: datetime,
    ) -> bytes:
        """The certificate in PEM. `seconds` is the wished lifetime. Raises ValueError for a request that cannot be."""
        life = self._life(seconds)
        ends = now + life - (timedelta() if life < _SHORT else BACKDATED)
        authority_ends = self.certificate.not_valid_after_utc
        if authority_ends <= now:
            raise ValueError("the authority's certificate has expired")
        try:
            valid = request.is_signature_valid
        except UnsupportedAlgorithm as error:
            raise ValueError(f"unable to verify certificate request signature: {error}") from error
        if not valid:
            raise ValueError("unable to verify certificate request signature")
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(ends, authority_ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        key_usage = _key_usage(usages)
        if key_usage is not None:
            builder = builder.add_extension(key_usage, critical=True)
        extended = list(dict.fromkeys(_EXTENDED[usage] for usage in usages if usage in _EXTENDED))
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        try:
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(names.value, critical=names.critical)
        except x509.ExtensionNotFound:
            pass
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _life(self, seconds: int | None) -> timedelta:
        if seconds is None or timedelta(seconds=seconds) > self.longest:
            return self.longest
        return max(timedelta(seconds=seconds), _SHORTEST)


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage | None:
    """None when nothing is said of the key: an empty extension would forbid every use of it."""
    wanted = {_KEY_USAGES[usage] for usage in usages if usage in _KEY_USAGES}
    if not wanted:
        return None
    # Both only say more of key agreement, and mean nothing without it.
    agreed = "key_agreement" in wanted
    return x509.KeyUsage(
        digital_signature="digital_signature" in wanted,
        content_commitment="content_commitment" in wanted,
        key_encipherment="key_encipherment" in wanted,
        data_encipherment="data_encipherment" in wanted,
        key_agreement=agreed,
        key_cert_sign="key_cert_sign" in wanted,
        crl_sign="crl_sign" in wanted,
        encipher_only=agreed and "encipher_only" in wanted,
        decipher_only=agreed and "decipher_only" in wanted,
    )
