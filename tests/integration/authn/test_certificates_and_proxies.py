"""Client certificates of all sorts, and the proxy that speaks for others."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.apiserver import TOKEN, Served, cluster
from support.authentication import Rights, whoami

from controlplane.apiserver.authn.settings import AuthenticationSettings, HeaderNames, RequestHeaderSettings
from controlplane.apiserver.pki import CertificateAuthority

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def certificate(
    directory: Path,
    subject: list[tuple[x509.ObjectIdentifier, str]],
    *,
    starts: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(hours=1),
    usages: tuple[x509.ObjectIdentifier, ...] = (CLIENT,),
) -> tuple[Path, Path]:
    """A certificate of the authority in `directory`, and its key."""
    signer = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    signing = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in subject]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    made = builder.sign(signing, hashes.SHA256())
    cert_path, key_path = directory / "made.crt", directory / "made.key"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_path, key_path


def tls(api: Served, files: tuple[Path, Path]) -> ssl.SSLContext:
    context = api.client_tls(certificate=False)
    context.load_cert_chain(*files)
    return context


def pki(api: Served) -> Path:
    return api.admin.cert.parent


async def test_subject_and_digest_are_the_user(api: Served) -> None:
    subject = [
        (NameOID.ORGANIZATION_NAME, "b"),
        (NameOID.ORGANIZATION_NAME, "a"),
        (NameOID.COMMON_NAME, "jane"),
    ]
    files = certificate(pki(api), subject)
    code, user = await whoami(api, tls=tls(api, files))
    der = x509.load_pem_x509_certificate(files[0].read_bytes()).fingerprint(hashes.SHA256()).hex()
    assert (code, user) == (
        201,
        {
            "username": "jane",
            "groups": ["b", "a", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": [f"X509SHA256={der}"]},
        },
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"ends": timedelta(seconds=-5)},
        {"starts": timedelta(seconds=600)},
        {"subject": [(NameOID.ORGANIZATION_NAME, "system:masters")]},
    ],
)
async def test_certificates_that_are_no_use_get_a_401(api: Served, bad: dict[str, Any]) -> None:
    subject = bad.pop("subject", [(NameOID.COMMON_NAME, "jane")])
    context = tls(api, certificate(pki(api), subject, **bad))
    code, status = await whoami(api, tls=context)
    assert (code, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")
    # A good token makes up for it.
    assert (await whoami(api, TOKEN, tls=context))[0] == 201


async def test_a_certificate_for_servers_is_none_for_clients(api: Served) -> None:
    files = certificate(pki(api), [(NameOID.COMMON_NAME, "x")], usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await whoami(api, tls=tls(api, files))


async def test_an_identity_is_in_one_of_two_worlds(api: Served) -> None:
    """Whoever says to be unauthenticated is not made authenticated as well."""
    subject = [(NameOID.ORGANIZATION_NAME, "system:unauthenticated"), (NameOID.COMMON_NAME, "x")]
    _, user = await whoami(api, tls=tls(api, certificate(pki(api), subject)))
    assert user["groups"] == ["system:unauthenticated"]


@dataclass
class Proxied:
    api: Served
    directory: Path

    def tls(self, common_name: str = "front", *, foreign: bool = False, **more: Any) -> ssl.SSLContext:
        """A client of the front-proxy authority, or (`foreign`) of the cluster's own one."""
        directory = pki(self.api) if foreign else self.directory
        return tls(self.api, certificate(directory, [(NameOID.COMMON_NAME, common_name)], **more))


@pytest.fixture
async def proxied(tmp_path: Path) -> AsyncIterator[Proxied]:
    CertificateAuthority.load_or_create(tmp_path / "front", "front-proxy-ca")
    settings = AuthenticationSettings(
        request_header=RequestHeaderSettings(
            client_ca_file=tmp_path / "front" / "ca.crt",
            allowed_names=("front", "other"),
            names=HeaderNames(
                users=("X-Remote-User", "X-My-User"), extra_prefixes=("X-Remote-Extra-", "X-Mine-")
            ),
        )
    )
    async with cluster(tmp_path, authentication=settings, authorizer=Rights()) as api:
        yield Proxied(api, tmp_path / "front")


HEADERS = [
    ("X-Remote-User", "alice"),
    ("X-Remote-Uid", "42"),
    ("X-Remote-Group", "dev"),
    ("X-Remote-Group", "ops, all"),
    ("X-Remote-Extra-Acme.com%2fproject", "one"),
    ("X-Remote-Extra-Acme.com%2fproject", "two"),
]


async def test_a_proxy_names_the_user(proxied: Proxied) -> None:
    code, user = await whoami(proxied.api, tls=proxied.tls(), headers=HEADERS)
    assert (code, user) == (
        201,
        {
            "username": "alice",
            "uid": "42",
            "groups": ["dev", "ops, all", "system:authenticated"],
            "extra": {"acme.com/project": ["one", "two"]},
        },
    )
    other = [("X-My-User", "bob"), ("X-Mine-A", "1")]
    code, user = await whoami(proxied.api, tls=proxied.tls("other"), headers=other)
    assert (code, user["username"], user["extra"]) == (201, "bob", {"a": ["1"]})


async def test_nobody_else_can_name_users(proxied: Proxied) -> None:
    api = proxied.api
    # Another name, no name, no certificate, an expired one: the headers count for nothing.
    for context in (
        proxied.tls("stranger"),
        proxied.tls("front", ends=timedelta(seconds=-5)),
        api.client_tls(certificate=False),
    ):
        assert (await whoami(api, tls=context, headers=HEADERS))[0] == 401
    assert (await whoami(api, tls=proxied.tls()))[0] == 401
    # The cluster's own clients stay who they are, even under the proxy's name.
    for name in ("jane", "front"):
        code, user = await whoami(api, tls=proxied.tls(name, foreign=True), headers=HEADERS)
        assert (code, user["username"], user["groups"]) == (201, name, ["system:authenticated"])
    code, user = await whoami(api, TOKEN, headers=HEADERS)
    assert (code, user["username"]) == (201, "root")


async def test_a_proxy_s_authority_makes_no_users(proxied: Proxied) -> None:
    """A certificate of the front-proxy authority is no client certificate, whatever its subject."""
    subject = [(NameOID.ORGANIZATION_NAME, "system:masters"), (NameOID.COMMON_NAME, "admin")]
    code, _ = await whoami(proxied.api, tls=tls(proxied.api, certificate(proxied.directory, subject)))
    assert code == 401


async def test_smuggled_spellings_are_other_headers(proxied: Proxied) -> None:
    for headers in (
        [("X_Remote_User", "alice")],
        [("X-Remote-User-", "alice")],
        [("X-Remote-User", "")],
        [("X-Remote-Users", "alice"), ("X-Remote-Group", "system:masters")],
    ):
        assert (await whoami(proxied.api, tls=proxied.tls(), headers=headers))[0] == 401
    twice = [("X-Remote-User", "alice"), ("X-Remote-User", "root")]
    assert (await whoami(proxied.api, tls=proxied.tls(), headers=twice))[1]["username"] == "alice"


async def test_the_headers_go_no_further(proxied: Proxied) -> None:
    """What a proxy says is for the API server alone: handlers, and with them kubelets, never see it."""
    seen: list[dict[str, str]] = []
    answer = proxied.api.server._core.handle

    async def spy(request: Any) -> Any:
        seen.append(dict(request.headers))
        return await answer(request)

    proxied.api.server._core.handle = spy  # type: ignore[method-assign]
    await whoami(proxied.api, tls=proxied.tls(), headers=[*HEADERS, ("X-Mine-B", "1"), ("X-Kept", "1")])
    assert seen[0]["x-kept"] == "1"
    assert not [name for name in seen[0] if "remote" in name or "mine" in name]
