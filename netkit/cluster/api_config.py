"""The authentication options of the configuration's section `api`, named as kube-apiserver's flags are. Pure.

Called by `config`. What is inside the files that are named is checked when the control plane is set up.
"""

from __future__ import annotations

from controlplane.apiserver.authn.settings import (
    AuthenticationSettings,
    HeaderNames,
    OidcSettings,
    RequestHeaderSettings,
    WebhookTokenSettings,
)
from netkit.cluster.errors import ConfigError
from netkit.cluster.fields import Fields


def authentication(api: Fields) -> AuthenticationSettings:
    """Raises ConfigError."""
    issuer = api.strings("serviceAccountIssuer")
    settings = AuthenticationSettings(
        anonymous=api.flag("anonymousAuth", False),
        token_file=api.path("tokenAuthFile"),
        bootstrap_tokens=api.flag("enableBootstrapTokenAuth", True),
        service_account_issuers=issuer,
        service_account_key_files=api.paths("serviceAccountKeyFiles"),
        api_audiences=api.strings("apiAudiences"),
        max_token_expiration=int(api.seconds("serviceAccountMaxTokenExpiration", 0)),
        extend_token_expiration=api.flag("serviceAccountExtendTokenExpiration", True),
        oidc=_oidc(api.section("oidc")),
        webhook=_webhook(api.section("authenticationWebhook")),
        request_header=_request_header(api.section("requestHeader")),
        configuration_file=api.path("authenticationConfig"),
    )
    limit = settings.max_token_expiration
    if limit and not 3600 <= limit <= 1 << 32:
        raise ConfigError("api.serviceAccountMaxTokenExpiration: must be between 1 hour and 2^32 seconds")
    if settings.oidc is not None and settings.configuration_file is not None:
        raise ConfigError("api.oidc: cannot be used together with api.authenticationConfig")
    return settings


def _oidc(section: Fields) -> OidcSettings | None:
    base = OidcSettings(issuer_url="", client_id="")
    found = OidcSettings(
        issuer_url=section.text("issuerURL", ""),
        client_id=section.text("clientID", ""),
        username_claim=section.text("usernameClaim", base.username_claim),
        username_prefix=section.text("usernamePrefix", ""),
        groups_claim=section.text("groupsClaim", ""),
        groups_prefix=section.text("groupsPrefix", ""),
        required_claims=section.pairs("requiredClaims"),
        signing_algs=section.strings("signingAlgs") or base.signing_algs,
        ca_file=section.path("caFile"),
    )
    section.finish()
    if found == base:
        return None
    if not found.issuer_url.startswith("https://"):
        raise ConfigError("api.oidc.issuerURL: an https URL is needed")
    if not found.client_id:
        raise ConfigError("api.oidc.clientID: is needed")
    return found


def _webhook(section: Fields) -> WebhookTokenSettings | None:
    file = section.path("configFile")
    seconds = section.seconds("cacheTTL", 120.0)
    section.finish()
    return None if file is None else WebhookTokenSettings(config_file=file, cache_seconds=seconds)


def _request_header(section: Fields) -> RequestHeaderSettings | None:
    base = HeaderNames()
    file = section.path("clientCAFile")
    allowed = section.strings("allowedNames")
    names = HeaderNames(
        users=section.strings("usernameHeaders") or base.users,
        uids=section.strings("uidHeaders") or base.uids,
        groups=section.strings("groupHeaders") or base.groups,
        extra_prefixes=section.strings("extraHeaderPrefixes") or base.extra_prefixes,
    )
    section.finish()
    if file is None:
        if allowed or names != base:
            raise ConfigError("api.requestHeader.clientCAFile: is needed")
        return None
    return RequestHeaderSettings(client_ca_file=file, allowed_names=allowed, names=names)
