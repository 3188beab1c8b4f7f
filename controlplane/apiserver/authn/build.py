"""Settings -> the authenticators, in upstream's order: proxy, certificates, then tokens. Called by `server.py`.

Everything that can be wrong with an option or a file is found here, before the server listens.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from controlplane.apiserver.authn import structured
from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.bearer import BearerTokens
from controlplane.apiserver.authn.bootstrap_token import BootstrapTokenAuthenticator
from controlplane.apiserver.authn.certificates import CertificateAuthenticator, ClientAuthority
from controlplane.apiserver.authn.credentials import Authenticator, TokenAuthenticator
from controlplane.apiserver.authn.issuer_documents import KEYS_PATH, issuer_documents
from controlplane.apiserver.authn.key_source import KeySource
from controlplane.apiserver.authn.keys import signing_key, verifying_keys
from controlplane.apiserver.authn.objects import Lookup
from controlplane.apiserver.authn.oidc import (
    SIGNING_ALGORITHMS,
    ClaimMapping,
    IssuerRules,
    OidcAuthenticator,
)
from controlplane.apiserver.authn.request_header import RequestHeaderAuthenticator
from controlplane.apiserver.authn.service_account import TokenIssuer
from controlplane.apiserver.authn.service_account_token import ServiceAccountTokens
from controlplane.apiserver.authn.settings import (
    STANDARD_NAMES,
    AuthenticationConfigError,
    AuthenticationSettings,
    HeaderNames,
    OidcSettings,
    WebhookTokenSettings,
)
from controlplane.apiserver.authn.structured import Configured, ConfiguredIssuer
from controlplane.apiserver.authn.token_file import TokenFileAuthenticator
from controlplane.apiserver.authn.union import FirstOf, FirstToken
from controlplane.apiserver.authn.webhook import WebhookTokenAuthenticator
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.pki import service_account_key
from controlplane.client.transport import Transport


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
    except (ValueError, ssl.SSLError) as error:
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
    configured = _configured(settings)
    closers: list[Callable[[], Awaitable[None]]] = []
    for found in configured.issuers:
        tls = ssl.create_default_context(cadata=found.authority or None)
        source = KeySource(found.rules.url, found.discovery_url, tls)
        tokens.append(OidcAuthenticator(found.rules, source, audiences))
        closers.append(source.close)
    if settings.webhook is not None:
        asked = WebhookTokenAuthenticator(
            _transport(settings.webhook), settings.webhook.cache_seconds, audiences
        )
        tokens.append(asked)
        closers.append(asked.close)
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
        anonymous=bool(configured.anonymous),
        anonymous_paths=configured.anonymous_paths,
        closers=closers,
    )
    documents = issuer_documents(issuers[0], f"https://{server_address}{KEYS_PATH}", keys)
    return AuthenticationParts(authentication, issuer, documents, tuple(names))


def _configured(settings: AuthenticationSettings) -> Configured:
    """What the configuration file says, or the same from the single options."""
    if settings.configuration_file is not None:
        if settings.oidc is not None:
            raise ValueError("an authentication configuration file and oidc options cannot be used together")
        found = structured.load(settings.configuration_file)
        if found.anonymous is None:
            return replace(found, anonymous=settings.anonymous, anonymous_paths=settings.anonymous_paths)
        return found
    issuers = () if settings.oidc is None else (_issuer(settings.oidc),)
    return Configured(issuers, settings.anonymous, settings.anonymous_paths)


def _issuer(oidc: OidcSettings) -> ConfiguredIssuer:
    url = oidc.issuer_url
    if not url.startswith("https://"):
        raise ValueError(f'oidc issuer URL "{url}": the scheme must be https')
    if not oidc.client_id:
        raise ValueError("oidc: a client id is needed")
    for algorithm in oidc.signing_algs:
        if algorithm not in SIGNING_ALGORITHMS:
            raise ValueError(
                f"oidc signing algorithm {algorithm}: expected one of {', '.join(SIGNING_ALGORITHMS)}"
            )
    prefix = "" if oidc.username_prefix == "-" else oidc.username_prefix
    if not oidc.username_prefix and oidc.username_claim != "email":
        prefix = f"{url}#"
    rules = IssuerRules(
        url=url,
        audiences=(oidc.client_id,),
        username=ClaimMapping(claim=oidc.username_claim, prefix=prefix),
        groups=ClaimMapping(claim=oidc.groups_claim, prefix=oidc.groups_prefix),
        required_claims=oidc.required_claims,
        signing_algorithms=oidc.signing_algs,
    )
    authority = "" if oidc.ca_file is None else oidc.ca_file.read_text()
    return ConfiguredIssuer(rules, url.rstrip("/") + "/.well-known/openid-configuration", authority)


def _transport(webhook: WebhookTokenSettings) -> Transport:
    from controlplane.client.kubeconfig import KubeconfigError, load

    try:
        return load(webhook.config_file).transport()
    except (KubeconfigError, ssl.SSLError) as error:
        raise ValueError(f"token webhook: {error}") from error


def client_authorities(settings: AuthenticationSettings, pki_dir: Path) -> Sequence[Path]:
    """The files of authorities that TLS must trust clients by."""
    proxy = settings.request_header
    return [pki_dir / "ca.crt", *([proxy.client_ca_file] if proxy is not None else [])]


def check(settings: AuthenticationSettings, pki_dir: Path, cluster_domain: str) -> None:
    """Whether authentication could be set up so. Raises AuthenticationConfigError."""

    async def nothing(group: str, plural: str, namespace: str, name: str) -> None:
        return None

    try:
        build(settings, pki_dir, cluster_domain, "", nothing)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for path in client_authorities(settings, pki_dir):
            server.load_verify_locations(path)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        raise AuthenticationConfigError(f"authentication: {named}{error.strerror or error}") from error
