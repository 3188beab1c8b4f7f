"""Keys that sign and verify tokens: read from PEM, named by a hash, told as JSON Web Keys.

A key is good for one algorithm only (RS256 for RSA, ES256/384/512 by the curve), so that a token cannot choose how it
is verified.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controlplane.errors import Object

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CURVES = {
    "secp256r1": ("ES256", "P-256", 32),
    "secp384r1": ("ES384", "P-384", 48),
    "secp521r1": ("ES512", "P-521", 66),
}
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A public key, its name (`kid`) and the one algorithm it is used with."""

    id: str
    algorithm: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its public half."""

    key: PrivateKey
    public: VerifyingKey


def verifying_key(key: object) -> VerifyingKey:
    """Raises ValueError for keys of kinds that sign no tokens."""
    if isinstance(key, rsa.RSAPublicKey):
        algorithm = "RS256"
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        algorithm = _CURVES[key.curve.name][0]
    else:
        raise ValueError("expected an RSA key, or an EC key on P-256, P-384 or P-521")
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(_base64url(hashlib.sha256(der).digest()), algorithm, key)


def signing_key(pem: bytes) -> SigningKey:
    """Raises ValueError."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise ValueError("the private key is protected by a password") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError("expected an RSA or EC private key")
    return SigningKey(key, verifying_key(key.public_key()))


def verifying_keys(path: Path) -> Sequence[VerifyingKey]:
    """All keys of a PEM file: public ones, and the public halves of private ones and of certificates.

    Raises ValueError when there is none, OSError.
    """
    found = []
    for match in _BLOCK.finditer(path.read_bytes()):
        block, label = match.group(), match.group(1)
        try:
            if label == b"CERTIFICATE":
                key: object = x509.load_pem_x509_certificate(block).public_key()
            elif label.endswith(b"PUBLIC KEY"):
                key = serialization.load_pem_public_key(block)
            elif label.endswith(b"PRIVATE KEY"):
                key = serialization.load_pem_private_key(block, None).public_key()
            else:
                continue
            found.append(verifying_key(key))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    if not found:
        raise ValueError(f"{path}: no public or private key in it")
    return found


def jwk(key: VerifyingKey) -> Object:
    """The key as a JSON Web Key."""
    found: Object = {"use": "sig", "kid": key.id, "alg": key.algorithm}
    if isinstance(key.key, rsa.RSAPublicKey):
        numbers = key.key.public_numbers()
        return found | {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    point = key.key.public_numbers()
    _, curve, size = _CURVES[key.key.curve.name]
    return found | {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}


def _number(value: int, size: int = 0) -> str:
    return _base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
