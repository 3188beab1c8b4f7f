"""Certificate requests for tests."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CLIENT_USAGES = ("client auth", "digital signature", "key encipherment")


def asked(
    common_name: str,
    organizations: Sequence[str] = (),
    dns: Sequence[str] = (),
    ips: Sequence[str] = (),
    emails: Sequence[str] = (),
    uris: Sequence[str] = (),
    key: ec.EllipticCurvePrivateKey | None = None,
) -> x509.CertificateSigningRequest:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns]
    names += [x509.IPAddress(ip_address(ip)) for ip in ips]
    names += [x509.RFC822Name(mail) for mail in emails]
    names += [x509.UniformResourceIdentifier(uri) for uri in uris]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


def encoded(request: x509.CertificateSigningRequest) -> str:
    return base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode()


def request_object(
    name: str,
    request: x509.CertificateSigningRequest,
    signer: str = "kubernetes.io/kube-apiserver-client",
    usages: Sequence[str] = CLIENT_USAGES,
    **spec: Any,
) -> Any:
    return {
        "metadata": {"name": name},
        "spec": {"request": encoded(request), "signerName": signer, "usages": list(usages), **spec},
    }


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path
