"""Settings -> the authenticators, in upstream's order: proxy, certificates, then tokens. Called by `server.py`.

Everything that can be wrong with an option or a file is found here, before the server listens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.bearer import BearerTokens
from controlplane.apiserver.authn.bootstrap_token import BootstrapTokenAuthenticator
from controlplane.apiserver.authn.certificates import CertificateAuthenticator, ClientAuthority
from controlplane.apiserver.authn.credentials import Authenticator, TokenAuthenticator
from controlplane.apiserver.authn.issuer_documents import KEYS_PATH, issuer_documents
from controlplane.apiserver.authn.keys import signing_key, verifying_keys
from controlplane.apiserver.authn.objects import Lookup
from controlplane.apiserver.authn.request_header import (
    STANDARD_NAMES,
    HeaderNames,
    RequestHeaderAuthenticator,
)
from controlplane.apiserver.authn.service_account import TokenIssuer
from controlplane.apiserver.authn.service_account_token import ServiceAccountTokens
from controlplane.apiserver.authn.settings import AuthenticationConfigError, AuthenticationSettings
from controlplane.apiserver.authn.token_file import TokenFileAuthenticator
from controlplane.apiserver.authn.union import FirstOf, FirstToken
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.pki import service_account_key


@dataclass(frozen=True, slots=True)
class AuthenticationParts:
    """What the server needs: who asks, the issuer of tokens, the issuer's documents, the proxy's headers."""

    authentication: Authentication
    issuer: TokenIssuer
    documents: Mapping[str, ApiResponse]
    header_names: tuple[HeaderNames, ...]


def build(
    settings: AuthenticationSettings, pki_dir: Path, cluster_domain: str, server_address: str, lookup: Lookup
) -> AuthenticationParts:
    """`server_address` is `host:port` as clients reach the server. Raises AuthenticationConfigError, OSError."""
    try:
        return _build(settings, pki_dir, cluster_domain, server_address, lookup)
    except ValueError as error:
        raise AuthenticationConfigError(str(error)) from error


def _build(
    settings: AuthenticationSettings, pki_dir: Path, cluster_domain: str, server_address: str, lookup: Lookup
) -> AuthenticationParts:
    issuers = settings.service_account_issuers or (f"https://kubernetes.default.svc.{cluster_domain}",)
    audiences = settings.api_audiences or issuers[:1]
    key = signing_key(service_account_key(pki_dir))
    keys = [
        key.public,
        *(found for path in settings.service_account_key_files for found in verifying_keys(path)),
    ]
    issuer = TokenIssuer(
        issuers[0], key, audiences, settings.max_token_expiration, settings.extend_token_expiration
    )
    tokens: list[TokenAuthenticator] = []
    if settings.token_file is not None:
        tokens.append(TokenFileAuthenticator(settings.token_file, audiences))
    tokens.append(ServiceAccountTokens(issuers, keys, audiences, lookup))
    if settings.bootstrap_tokens:
        tokens.append(BootstrapTokenAuthenticator(lookup, audiences))
    names = [STANDARD_NAMES]
    authenticators: list[Authenticator] = []
    proxy = settings.request_header
    if proxy is not None:
        names.append(proxy.names)
        authority = ClientAuthority(proxy.client_ca_file)
        authenticators.append(RequestHeaderAuthenticator(authority, proxy.allowed_names, proxy.names))
    clients = ClientAuthority(pki_dir / "ca.crt", alone=proxy is None)
    authenticators.append(CertificateAuthenticator(clients))
    authenticators.append(BearerTokens(FirstToken(tokens), audiences))
    authentication = Authentication(
        FirstOf(authenticators),
        audiences,
        anonymous=settings.anonymous,
        anonymous_paths=settings.anonymous_paths,
    )
    documents = issuer_documents(issuers[0], f"https://{server_address}{KEYS_PATH}", keys)
    return AuthenticationParts(authentication, issuer, documents, tuple(names))


def client_authorities(settings: AuthenticationSettings, pki_dir: Path) -> Sequence[Path]:
    """The files of authorities that TLS must trust clients by."""
    proxy = settings.request_header
    return [pki_dir / "ca.crt", *([proxy.client_ca_file] if proxy is not None else [])]
