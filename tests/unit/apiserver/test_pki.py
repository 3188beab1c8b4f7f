"""The authority and its certificates, and what a kill in the middle leaves behind."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from support.apiserver import subject

from controlplane.apiserver import pki
from controlplane.apiserver.pki import CertificateAuthority, PkiError, service_account_key, subject_of


def test_an_authority_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = CertificateAuthority.load_or_create(tmp_path)
    again = CertificateAuthority.load_or_create(tmp_path)
    assert first.certificate_pem == again.certificate_pem
    certificate = x509.load_pem_x509_certificate(first.certificate_pem)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc < now - timedelta(minutes=5)
    assert certificate.not_valid_after_utc > now + timedelta(days=3600)


def test_private_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        authority = CertificateAuthority.load_or_create(tmp_path / "pki")
        authority.ensure("admin", "kubernetes-admin", ["system:masters"])
        service_account_key(tmp_path / "pki")
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pki").iterdir()}
    assert modes == dict.fromkeys(["ca.crt", "ca.key", "admin.crt", "admin.key", "sa.key", "sa.pub"], 0o600)


def test_a_leaf_carries_its_user_groups_and_names(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    pem, _ = authority.issue(
        "system:node:n1", ["system:nodes"], ["n1"], [ip_address("172.18.0.2")], client=True, server=True
    )
    certificate = x509.load_pem_x509_certificate(pem)
    assert subject_of(certificate) == ("system:node:n1", frozenset({"system:nodes"}))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n1"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("172.18.0.2")]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))


@pytest.mark.parametrize("half", ["only the key", "only the certificate"])
def test_a_half_written_authority_never_counts(tmp_path: Path, half: str) -> None:
    before = CertificateAuthority.load_or_create(tmp_path)
    if half == "only the key":
        (tmp_path / "ca.crt").unlink()
        after = CertificateAuthority.load_or_create(tmp_path)
        assert after.certificate_pem != before.certificate_pem
        assert after.issue("x")[0].startswith(b"-----BEGIN CERTIFICATE")
    else:
        (tmp_path / "ca.key").unlink()
        with pytest.raises(PkiError, match=r"ca\.key: missing"):
            CertificateAuthority.load_or_create(tmp_path)


def test_a_foreign_key_beside_the_authority_is_refused(tmp_path: Path) -> None:
    CertificateAuthority.load_or_create(tmp_path)
    (tmp_path / "ca.key").write_bytes(pki.new_key_pem())
    with pytest.raises(PkiError, match="does not belong"):
        CertificateAuthority.load_or_create(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "ca.key"
    pki.write_private(target, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        pki.write_private(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["ca.key"]


def test_ensure_keeps_a_good_pair_and_replaces_a_bad_one(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    paths = authority.ensure("web", "web", dns_names=["a"], server=True)
    kept = paths.cert.read_bytes()
    authority.ensure("web", "web", dns_names=["a"], server=True)
    assert paths.cert.read_bytes() == kept

    authority.ensure("web", "web", dns_names=["a", "b"], server=True)
    wider = paths.cert.read_bytes()
    assert wider != kept

    paths.key.write_bytes(pki.new_key_pem())
    authority.ensure("web", "web", dns_names=["a", "b"], server=True)
    assert paths.cert.read_bytes() != wider

    paths.cert.write_bytes(b"torn")
    authority.ensure("web", "web", dns_names=["a", "b"], server=True)
    assert paths.cert.read_bytes().startswith(b"-----BEGIN CERTIFICATE")


def test_ensure_replaces_what_another_authority_signed(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    paths = authority.ensure("web", "web")
    before = paths.cert.read_bytes()
    (tmp_path / "ca.crt").unlink()
    CertificateAuthority.load_or_create(tmp_path).ensure("web", "web")
    assert paths.cert.read_bytes() != before


async def test_both_sides_of_a_connection_believe_each_other(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    loopback = [ip_address("127.0.0.1")]
    server_paths = authority.ensure("server", "kube-apiserver", ips=loopback, client=False, server=True)
    client_paths = authority.ensure("client", "alice", ["dev", "ops"])
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate_path)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_cert_chain(server_paths.cert, server_paths.key)
    client_tls = ssl.create_default_context(cafile=authority.certificate_path)
    client_tls.load_cert_chain(client_paths.cert, client_paths.key)
    seen: asyncio.Future[tuple[str, tuple[str, ...]]] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(subject(writer.get_extra_info("peercert")))
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=server_tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls)
        name, groups = await asyncio.wait_for(seen, 5)
        writer.close()
    assert (name, set(groups)) == ("alice", {"dev", "ops"})
