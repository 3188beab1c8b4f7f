"""The control plane's certificates and its TLS contexts, made from the authority of `pki`. Used by the composition."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from controlplane.apiserver.aggregation import FrontProxy
from controlplane.apiserver.authz import MASTERS
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths
from controlplane.apiserver.settings import ControlPlaneSettings, IPAddress

ADMIN_STEM = "admin"


@dataclass(frozen=True, slots=True)
class ServerCertificates:
    """What `prepare_pki` made: the authority, and the API server's two identities."""

    authority: CertificateAuthority
    server: CertificatePaths
    kubelet_client: CertificatePaths
    admin: CertificatePaths
    front_proxy: FrontProxy


def prepare_pki(settings: ControlPlaneSettings, addresses: Iterable[IPAddress] = ()) -> ServerCertificates:
    """The authority and the control plane's certificates, made where missing. `addresses`: where it listens.

    Safe to repeat and after a kill at any moment. Raises PkiError, OSError.
    """
    authority = CertificateAuthority.load_or_create(settings.pki_dir)
    ips = {ip_address("127.0.0.1"), settings.api_service_ip, *addresses}
    if settings.advertise_address is not None:
        ips.add(settings.advertise_address)
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"kubernetes.default.svc.{settings.cluster_domain}")
    for name in settings.server_names:
        try:
            ips.add(ip_address(name))
        except ValueError:
            names.append(name)
    usable = sorted((ip for ip in ips if not ip.is_unspecified), key=lambda ip: (ip.version, int(ip)))
    return ServerCertificates(
        authority,
        authority.ensure("apiserver", "kube-apiserver", (), names, usable, client=False, server=True),
        authority.ensure("apiserver-kubelet-client", "kube-apiserver-kubelet-client", [MASTERS]),
        authority.ensure(ADMIN_STEM, "kubernetes-admin", [MASTERS]),
        FrontProxy.ensure(settings.pki_dir),
    )


_NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which `ssl.VerifyFlags` has no name for."""


def server_tls(certificates: ServerCertificates, client_authorities: Iterable[Path]) -> ssl.SSLContext:
    """TLS for clients of the API server; a client certificate is welcome, not required (tokens do as well).

    Certificates of authorities unknown here end the handshake: Python's `ssl` offers no way to let them through to
    a 401, as Go's servers do. Dates are left to authentication, which answers 401.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.cert, certificates.server.key)
    for path in client_authorities:
        context.load_verify_locations(path)
    context.verify_flags |= _NO_CHECK_TIME
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


def kubelet_tls(certificates: ServerCertificates) -> ssl.SSLContext:
    """TLS towards kubelets, under the API server's client certificate."""
    context = ssl.create_default_context(cafile=certificates.authority.certificate_path)
    context.load_cert_chain(certificates.kubelet_client.cert, certificates.kubelet_client.key)
    return context
