"""What an operator may choose about authentication, and the faults in it. Read by `build` alone.

The names are those of kube-apiserver's flags, in snake_case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class AuthenticationConfigError(ValueError):
    """Authentication cannot be set up; the text is one line that names the option or the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """One OpenID Connect issuer, as by `--oidc-*`.

    `username_prefix` "" = as upstream: none for the claim `email`, else the issuer's URL and `#`; `-` = none.
    """

    issuer_url: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str = ""
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: Mapping[str, str] = field(default_factory=dict)
    signing_algs: tuple[str, ...] = ("RS256",)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTokenSettings:
    """Token authentication by another server: a kubeconfig file that leads there, seconds its answers are kept."""

    config_file: Path
    cache_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class HeaderNames:
    """The headers a proxy speaks in; `extra_prefixes` are the beginnings of `X-Remote-Extra-scopes` and the like."""

    users: tuple[str, ...] = ("X-Remote-User",)
    uids: tuple[str, ...] = ("X-Remote-Uid",)
    groups: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    def covers(self, name: str) -> bool:
        """Whether a header of that name (lower case) is one of these."""
        return any(name == known.lower() for known in (*self.users, *self.uids, *self.groups)) or any(
            name.startswith(prefix.lower()) for prefix in self.extra_prefixes
        )


STANDARD_NAMES = HeaderNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaderSettings:
    """The authenticating proxy. No `allowed_names` = every certificate of the authority."""

    client_ca_file: Path
    allowed_names: tuple[str, ...] = ()
    names: HeaderNames = STANDARD_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationSettings:
    """All of it.

    `service_account_issuers`: the first signs, tokens of the others are still taken; none = the API server's name in
    the cluster. `api_audiences`: none = the first issuer. `service_account_key_files`: further keys that verify.
    `configuration_file`: an AuthenticationConfiguration, instead of `oidc` and `anonymous`.
    """

    anonymous: bool = False
    anonymous_paths: tuple[str, ...] = ()
    token_file: Path | None = None
    bootstrap_tokens: bool = True
    service_account_issuers: tuple[str, ...] = ()
    service_account_key_files: tuple[Path, ...] = ()
    api_audiences: tuple[str, ...] = ()
    max_token_expiration: int = 0
    extend_token_expiration: bool = True
    oidc: OidcSettings | None = None
    webhook: WebhookTokenSettings | None = None
    request_header: RequestHeaderSettings | None = None
    configuration_file: Path | None = None


DEFAULTS = AuthenticationSettings()
