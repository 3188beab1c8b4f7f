"""The authentication options of a cluster's configuration, and the one line each mistake gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.apiserver.authn.build import check
from controlplane.apiserver.authn.settings import (
    DEFAULTS,
    AuthenticationConfigError,
    AuthenticationSettings,
    OidcSettings,
    RequestHeaderSettings,
    WebhookTokenSettings,
)
from controlplane.apiserver.pki import CertificateAuthority
from netkit.cluster.config import parse
from netkit.cluster.errors import ConfigError


def test_nothing_said_is_the_default() -> None:
    assert parse({"api": {"port": 1234}}).authentication == DEFAULTS


def test_every_option_is_read() -> None:
    settings = parse(
        {
            "api": {
                "anonymousAuth": True,
                "tokenAuthFile": "/etc/tokens.csv",
                "enableBootstrapTokenAuth": False,
                "serviceAccountIssuer": ["https://a", "https://b"],
                "serviceAccountKeyFiles": "/etc/old.pub",
                "apiAudiences": ["api", "https://a"],
                "serviceAccountMaxTokenExpiration": "24h",
                "serviceAccountExtendTokenExpiration": False,
                "oidc": {
                    "issuerURL": "https://i",
                    "clientID": "c",
                    "usernameClaim": "email",
                    "usernamePrefix": "-",
                    "groupsClaim": "groups",
                    "groupsPrefix": "oidc:",
                    "requiredClaims": {"hd": "example.com"},
                    "signingAlgs": ["ES256"],
                    "caFile": "/etc/ca",
                },
                "authenticationWebhook": {"configFile": "/etc/hook", "cacheTTL": "10s"},
                "requestHeader": {
                    "clientCAFile": "/etc/front",
                    "allowedNames": ["front"],
                    "usernameHeaders": ["X-User"],
                },
            }
        }
    ).authentication
    assert settings.service_account_issuers == ("https://a", "https://b")
    assert settings.service_account_key_files == (Path("/etc/old.pub"),)
    assert settings.max_token_expiration == 86400
    assert settings.oidc == OidcSettings(
        issuer_url="https://i",
        client_id="c",
        username_claim="email",
        username_prefix="-",
        groups_claim="groups",
        groups_prefix="oidc:",
        required_claims={"hd": "example.com"},
        signing_algs=("ES256",),
        ca_file=Path("/etc/ca"),
    )
    assert settings.webhook == WebhookTokenSettings(config_file=Path("/etc/hook"), cache_seconds=10)
    assert settings.request_header is not None
    assert settings.request_header.names.users == ("X-User",)
    assert settings.request_header.names.groups == ("X-Remote-Group",)


@pytest.mark.parametrize(
    ("api", "told"),
    [
        ({"anonymousAuth": "yes"}, "api.anonymousAuth: expected true or false, got text"),
        ({"tokenAuthFile": 1}, "api.tokenAuthFile: expected a file's name"),
        ({"oidc": {"issuerURL": "http://i", "clientID": "c"}}, "api.oidc.issuerURL: an https URL is needed"),
        ({"oidc": {"issuerURL": "https://i"}}, "api.oidc.clientID: is needed"),
        ({"oidc": {"issuer": "x"}}, "api.oidc.issuer: unknown field"),
        ({"requestHeader": {"allowedNames": ["x"]}}, "api.requestHeader.clientCAFile: is needed"),
        ({"serviceAccountIssuer": [1]}, "api.serviceAccountIssuer: expected a list of texts, got a number in it"),
        ({"serviceAccountMaxTokenExpiration": "10m"}, "must be between 1 hour and 2^32 seconds"),
    ],
)  # fmt: skip
def test_mistakes(api: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"api": api})
    assert told in caught.value.message


def settings_of(directory: Path, name: str) -> AuthenticationSettings:
    (directory / "empty").write_text("")
    (directory / "short.csv").write_text("token,user\n")
    (directory / "structured.yaml").write_text("apiVersion: v1\nkind: Pod\n")
    (directory / "hook.yaml").write_text("current-context: none\n")
    here = directory
    return {
        "missing": AuthenticationSettings(token_file=here / "none"),
        "short": AuthenticationSettings(token_file=here / "short.csv"),
        "keys": AuthenticationSettings(service_account_key_files=(here / "empty",)),
        "proxy": AuthenticationSettings(request_header=RequestHeaderSettings(client_ca_file=here / "empty")),
        "structured": AuthenticationSettings(configuration_file=here / "structured.yaml"),
        "hook": AuthenticationSettings(webhook=WebhookTokenSettings(config_file=here / "hook.yaml")),
        "algorithm": AuthenticationSettings(
            oidc=OidcSettings(issuer_url="https://i", client_id="c", signing_algs=("HS256",))
        ),
        "authority": AuthenticationSettings(
            oidc=OidcSettings(issuer_url="https://i", client_id="c", ca_file=here / "short.csv")
        ),
    }[name]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "none: No such file or directory"),
        ("short", "short.csv:1: expected token,user,uid"),
        ("keys", "empty: no public or private key in it"),
        ("proxy", "PEM"),
        ("structured", "expected an AuthenticationConfiguration"),
        ("hook", 'no context named "none"'),
        ("algorithm", "oidc signing algorithm HS256"),
        ("authority", ""),
    ],
)
def test_files_are_checked_before_anything_listens(tmp_path: Path, name: str, told: str) -> None:
    CertificateAuthority.load_or_create(tmp_path / "pki")
    check(DEFAULTS, tmp_path / "pki", "cluster.local")
    with pytest.raises(AuthenticationConfigError) as caught:
        check(settings_of(tmp_path, name), tmp_path / "pki", "cluster.local")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
