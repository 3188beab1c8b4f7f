"""Tokens of issuers elsewhere."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.apiserver import Served, cluster
from support.authentication import Rights, reviewed, whoami
from support.issuer import Issuer, issuer

from controlplane.apiserver.authn.settings import AuthenticationSettings, OidcSettings


@asynccontextmanager
async def federated(directory: Path, **options: Any) -> AsyncIterator[tuple[Served, Issuer]]:
    async with issuer(directory) as made:
        oidc = OidcSettings(issuer_url=made.url, client_id="netkit", ca_file=made.ca)
        settings = AuthenticationSettings(oidc=replace(oidc, **options))
        async with cluster(directory, authentication=settings, authorizer=Rights()) as api:
            yield api, made


async def test_claims_become_a_user(tmp_path: Path) -> None:
    options = {"groups_claim": "roles", "groups_prefix": "oidc:", "required_claims": {"hd": "example.com"}}
    async with federated(tmp_path, **options) as (api, made):
        token = made.token(hd="example.com", roles=["dev", "ops"], jti="abc")
        code, user = await whoami(api, token)
        assert (code, user) == (
            201,
            {
                "username": f"{made.url}#jane",
                "groups": ["oidc:dev", "oidc:ops", "system:authenticated"],
                "extra": {"authentication.kubernetes.io/credential-id": ["JTI=abc"]},
            },
        )
        assert (await whoami(api, made.token(hd="example.com", roles="dev")))[1]["groups"][0] == "oidc:dev"
        for claims, told in (
            (
                {"hd": "other"},
                "oidc: required claim hd value does not match. Got = other, want = example.com",
            ),
            ({}, "oidc: required claim hd not present in ID token"),
            ({"hd": "example.com", "roles": {"a": 1}}, 'oidc: parse groups claim "roles"'),
            ({"hd": "example.com", "roles": [1]}, 'oidc: parse groups claim "roles"'),
        ):
            assert told in (await reviewed(api, made.token(**claims)))["error"]
        assert made.asked == ["/.well-known/openid-configuration", "/keys"]


Forge = Callable[[Issuer], str]


BAD: list[tuple[Forge, str]] = [
    (lambda i: i.token(exp=int(time.time()) - 1), "oidc: token is expired"),
    (lambda i: i.token(exp=None), "oidc: token is expired"),
    (lambda i: i.token(nbf=int(time.time()) + 1000), "before the nbf"),
    (lambda i: i.token(aud="other"), 'expected audience in ["netkit"] got ["other"]'),
    (lambda i: i.token(aud=None), "expected audience"),
    (lambda i: i.token(sub=None), 'oidc: parse username claims "sub": claim not present'),
    (lambda i: i.token(sub=""), "is empty"),
    (lambda i: i.token(iss="https://elsewhere"), "invalid bearer token"),
    (lambda i: i.token(key=rsa.generate_private_key(65537, 2048)), "failed to verify id token signature"),
    (lambda i: i.token(kid="none", key=i.keys["one"]), "failed to verify id token signature"),
    (lambda i: i.token(algorithm="RS512"), "unsupported algorithm, expected [RS256] got RS512"),
    (lambda i: i.token(key="x" * 64, algorithm="HS256"), "unsupported algorithm, expected [RS256] got HS256"),
    (lambda i: jwt.encode({"iss": i.url, "aud": "netkit", "sub": "x"}, None, algorithm="none"),
     "unsupported algorithm, expected [RS256] got none"),
    (lambda i: i.token()[:-8] + "AAAAAAAA", "failed to verify id token signature"),
]  # fmt: skip


async def test_bad_tokens_are_refused(tmp_path: Path) -> None:
    async with federated(tmp_path) as (api, made):
        assert (await reviewed(api, made.token()))["authenticated"] is True
        for forge, told in BAD:
            status = await reviewed(api, forge(made))
            assert "authenticated" not in status
            assert told in status["error"]
            assert (await whoami(api, forge(made)))[0] == 401


async def test_mail_addresses_must_be_verified(tmp_path: Path) -> None:
    async with federated(tmp_path, username_claim="email") as (api, made):
        _, user = await whoami(api, made.token(email="jane@example.com", email_verified=True))
        assert user["username"] == "jane@example.com"
        assert (await whoami(api, made.token(email="jane@example.com")))[0] == 201
        status = await reviewed(api, made.token(email="jane@example.com", email_verified=False))
        assert "oidc: email not verified" in status["error"]


async def test_new_keys_are_found_and_old_ones_forgotten(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("controlplane.apiserver.authn.key_source._PAUSE_SECONDS", 0.0)
    async with federated(tmp_path, signing_algs=("RS256", "ES256")) as (api, made):
        old = made.token()
        assert (await whoami(api, old))[0] == 201
        made.new_key("two", rsa_key=False)
        del made.keys["one"]
        assert (await whoami(api, made.token("two", algorithm="ES256")))[0] == 201
        assert (await whoami(api, old))[0] == 401


async def test_forged_tokens_do_not_flood_the_issuer(tmp_path: Path) -> None:
    async with federated(tmp_path) as (api, made):
        assert (await whoami(api, made.token()))[0] == 201
        for number in range(20):
            assert (await whoami(api, made.token(kid=f"k{number}", key=made.keys["one"])))[0] == 401
        assert made.asked.count("/keys") <= 3


async def test_an_issuer_that_lies_about_its_name_or_is_away(tmp_path: Path) -> None:
    async with federated(tmp_path) as (api, made):
        made.told_issuer = "https://evil"
        status = await reviewed(api, made.token())
        assert "issuer did not match the issuer returned by provider" in status["error"]
    assert (tmp_path / "tls").exists()


async def test_several_issuers_by_a_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with issuer(tmp_path / "a") as one, issuer(tmp_path / "b") as two:
        pem = [each.ca.read_text().replace("\n", "\n        ") for each in (one, two)]
        file = tmp_path / "authentication.yaml"
        file.write_text(
            f"""
apiVersion: apiserver.config.k8s.io/v1beta1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions: [{{path: /healthz}}]
jwt:
- issuer:
    url: {one.url}
    audiences: [netkit]
    certificateAuthority: |
        {pem[0]}
  claimMappings:
    username: {{claim: sub, prefix: "one:"}}
    uid: {{claim: id}}
- issuer:
    url: {two.url}
    audiences: [x, netkit]
    audienceMatchPolicy: MatchAny
    certificateAuthority: |
        {pem[1]}
  claimValidationRules: [{{claim: hd, requiredValue: b}}]
  claimMappings:
    username: {{claim: name, prefix: ""}}
    groups: {{claim: groups, prefix: "two:"}}
"""
        )
        settings = AuthenticationSettings(configuration_file=file)
        async with cluster(tmp_path, authentication=settings, authorizer=Rights()) as api:
            _, user = await whoami(api, one.token(id="u1"))
            assert (user["username"], user["uid"]) == ("one:jane", "u1")
            _, user = await whoami(api, two.token(name="joe", groups=["g"], hd="b", aud="x"))
            assert (user["username"], user["groups"][0]) == ("joe", "two:g")
            assert (await whoami(api, two.token(name="joe")))[0] == 401
            # One issuer's key is not the other's.
            assert (await whoami(api, one.token(iss=two.url, name="joe", hd="b")))[0] == 401
            assert (await whoami(api))[0] == 401


@pytest.mark.parametrize(
    ("jwt_entry", "told"),
    [
        ("{}", "jwt[0].issuer: expected a mapping"),
        ("{issuer: {url: 'http://x', audiences: [a]}}", "jwt[0].issuer.url: Invalid value"),
        ("{issuer: {url: 'https://x'}}", "jwt[0].issuer.audiences: Required value"),
        ("{issuer: {url: 'https://x', audiences: [a, b]}}", "audienceMatchPolicy must be MatchAny"),
        ("{issuer: {url: 'https://x', audiences: [a]}, claimMappings: {username: {expression: claims.sub}}}",
         "jwt[0].claimMappings.username.expression: CEL expressions"),
        ("{issuer: {url: 'https://x', audiences: [a]}, claimMappings: {username: {claim: sub}}}",
         "jwt[0].claimMappings.username.prefix: Required value"),
        ("{issuer: {url: 'https://x', audiences: [a]}, claimMappings: {}}", "jwt[0].claimMappings.username: Required"),
        ("{issuers: {}}", "jwt[0].issuers: unknown field"),
        ("3", "jwt[0]: expected a mapping"),
    ],
)  # fmt: skip
def test_mistakes_in_a_configuration_file(tmp_path: Path, jwt_entry: str, told: str) -> None:
    from controlplane.apiserver.authn.structured import load

    file = tmp_path / "a.yaml"
    head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n"
    file.write_text(f"{head}jwt: [{jwt_entry}]\n")
    with pytest.raises(ValueError, match=r"a\.yaml") as caught:
        load(file)
    assert told in str(caught.value)
