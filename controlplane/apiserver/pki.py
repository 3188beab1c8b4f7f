"""The cluster's certificates: one authority, and leaf certificates issued from it.

Called when a control plane starts for the first time and whenever a part needs a certificate. All keys are ECDSA
P-256. Files appear whole or not at all (written aside, synced, renamed; mode 0600), so a process killed half way
leaves nothing that a later start could mistake for a certificate. Must not know of HTTP.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_VALIDITY = timedelta(days=3650)
LEAF_VALIDITY = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(minutes=10)
"""How far `notBefore` lies back, so that machines whose clocks differ a little accept a new certificate."""

Address = IPv4Address | IPv6Address


class PkiError(Exception):
    """A certificate or key on disk cannot be used; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class CertificatePaths:
    """Where one leaf certificate and its key lie."""

    cert: Path
    key: Path


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` with mode 0600, durable and all at once (readers see the old file or the new one)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def new_key_pem() -> bytes:
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes, where: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"{where}: not a private key ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{where}: expected an EC private key")
    return key


def _load_certificate(pem: bytes, where: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError(f"{where}: not a certificate ({error})") from error


class CertificateAuthority:
    """The authority every part of one cluster trusts.

    The key is written before the certificate; the certificate's presence says that both are complete.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        directory: Path,
        stem: str = "ca",
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._directory = directory
        self._stem = stem

    @classmethod
    def load_or_create(
        cls, directory: Path, common_name: str = "kubernetes", stem: str = "ca"
    ) -> CertificateAuthority:
        """The authority in `directory` (`<stem>.crt`, `<stem>.key`); made at the first call.

        Raises PkiError when the files are there but do not belong together.
        """
        cert_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
        if cert_path.exists():
            if not key_path.exists():
                raise PkiError(f"{key_path}: missing beside {cert_path}; remove both to start anew")
            certificate = _load_certificate(cert_path.read_bytes(), cert_path)
            key = _load_key(key_path.read_bytes(), key_path)
            if certificate.public_key() != key.public_key():
                raise PkiError(f"{key_path}: does not belong to {cert_path}; remove both to start anew")
            return cls(certificate, key, directory, stem)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(common_name, key)
        write_private(key_path, _key_pem(key))
        write_private(cert_path, certificate.public_bytes(serialization.Encoding.PEM))
        return cls(certificate, key, directory, stem)

    @cached_property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_path(self) -> Path:
        return self._directory / f"{self._stem}.crt"

    def issue(
        self,
        common_name: str,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[Address] = (),
        *,
        client: bool = True,
        server: bool = False,
        validity: timedelta = LEAF_VALIDITY,
    ) -> tuple[bytes, bytes]:
        """A new key and a certificate for it, as `(certificate PEM, key PEM)`.

        `common_name` becomes the user's name and `organizations` the user's groups where the certificate
        authenticates a client; `dns_names` and `ips` are what a server may be called by.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH] * client + [ExtendedKeyUsageOID.SERVER_AUTH] * server
        builder = (
            _builder(common_name, organizations, self._certificate.subject, key.public_key(), validity)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ip) for ip in ips]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)

    def ensure(
        self,
        stem: str,
        common_name: str,
        organizations: Sequence[str] = (),
        dns_names: Sequence[str] = (),
        ips: Sequence[Address] = (),
        *,
        client: bool = True,
        server: bool = False,
    ) -> CertificatePaths:
        """`<directory>/<stem>.crt` and `.key`, issued when missing, near their end, for other names or by another CA.

        Safe to call at every start and after a kill at any moment: a pair that does not fit together is replaced.
        """
        paths = CertificatePaths(self._directory / f"{stem}.crt", self._directory / f"{stem}.key")
        wanted = {*dns_names, *map(str, ips)}
        if not self._usable(paths, common_name, frozenset(organizations), wanted):
            certificate, key = self.issue(
                common_name, organizations, dns_names, ips, client=client, server=server
            )
            write_private(paths.key, key)
            write_private(paths.cert, certificate)
        return paths

    def _usable(
        self, paths: CertificatePaths, common_name: str, organizations: frozenset[str], names: set[str]
    ) -> bool:
        try:
            certificate = _load_certificate(paths.cert.read_bytes(), paths.cert)
            key = _load_key(paths.key.read_bytes(), paths.key)
            certificate.verify_directly_issued_by(self._certificate)
        except (FileNotFoundError, PkiError, InvalidSignature, ValueError):
            return False
        return (
            certificate.public_key() == key.public_key()
            and certificate.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
            and subject_of(certificate) == (common_name, organizations)
            and names <= _names_of(certificate)
        )


def subject_of(certificate: x509.Certificate) -> tuple[str, frozenset[str]]:
    """The common name and the organizations of a certificate."""
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return (str(common[0].value) if common else "", frozenset(str(name.value) for name in organizations))


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def service_account_key(directory: Path) -> bytes:
    """The PEM key that signs ServiceAccount tokens (`sa.key`, EC or RSA), made at the first call with its public
    half (`sa.pub`).

    Raises PkiError when the file is there but is no key.
    """
    path = directory / "sa.key"
    if not path.exists():
        write_private(path, new_key_pem())
    pem = path.read_bytes()
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"{path}: not a private key ({error})") from error
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = directory / "sa.pub"
    if not beside.exists() or beside.read_bytes() != public:
        write_private(beside, public)
    return pem


def _self_signed(common_name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(common_name, (), issuer, key.public_key(), CA_VALIDITY)
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    common_name: str,
    organizations: Sequence[str],
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    validity: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + validity)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
