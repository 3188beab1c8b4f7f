"""Who this server is to aggregated servers: the front proxy, and how they learn whom to believe.

The certificate lies beside the cluster's others (`front-proxy-ca`, `front-proxy-client`, as kubeadm names them); the
ConfigMap `extension-apiserver-authentication` tells extension servers about it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from controlplane.apiserver.authn.settings import AuthenticationSettings
from controlplane.apiserver.pki import CertificateAuthority, CertificatePaths
from controlplane.apiserver.registry import Seed
from controlplane.resources.catalog import CONFIG_MAP

CLIENT_NAME = "front-proxy-client"
_AUTHORITY = "front-proxy-ca"
_CONFIG_MAP = "extension-apiserver-authentication"


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """The client certificate that aggregated servers are shown, and the authority it is from."""

    client: CertificatePaths
    authority: Path

    @classmethod
    def ensure(cls, pki_dir: Path) -> FrontProxy:
        """Made where missing. Raises PkiError, OSError."""
        authority = CertificateAuthority.load_or_create(pki_dir, _AUTHORITY, _AUTHORITY)
        return cls(authority.ensure(CLIENT_NAME, CLIENT_NAME), authority.certificate_path)

    def config_map(self, settings: AuthenticationSettings, client_authority: bytes) -> Seed:
        """What extension servers read. `client_authority`: the certificate (PEM) that signs this cluster's clients."""
        bundle = self.authority.read_text()
        allowed = [CLIENT_NAME]
        proxy = settings.request_header
        if proxy is not None:
            bundle = proxy.client_ca_file.read_text().rstrip("\n") + "\n" + bundle
            allowed = [*proxy.allowed_names, CLIENT_NAME] if proxy.allowed_names else []
        data = {
            "client-ca-file": client_authority.decode(),
            "requestheader-allowed-names": json.dumps(allowed),
            "requestheader-client-ca-file": bundle,
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-username-headers": '["X-Remote-User"]',
        }
        return Seed(CONFIG_MAP, {"metadata": {"name": _CONFIG_MAP}, "data": data}, "kube-system", renew=True)
