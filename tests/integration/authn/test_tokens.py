"""Static and bootstrap tokens, where a request carries one, and nobody at all."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from support.apiserver import GUEST_TOKEN, TOKEN, Served, cluster
from support.authentication import REVIEW, WHOAMI, Rights, reviewed, whoami

from controlplane.apiserver.authn.bearer import bearer_token
from controlplane.apiserver.authn.settings import AuthenticationSettings
from controlplane.apiserver.authn.token_file import TokenFileAuthenticator

AUDIENCES = ("https://kubernetes.default.svc.cluster.local",)


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({"Authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer abc def"}, "abc"),
        ({"Authorization": "  BEARER abc "}, "abc"),
        ({"Authorization": "Bearer  abc"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Authorization": "Basic abc"}, ""),
        ({"Authorization": "Bearerabc"}, ""),
        ({"Sec-WebSocket-Protocol": "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj"}, "abc"),
        ({"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.YWI_"}, "ab?"),
        ({"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.!!"}, ""),
        ({"Sec-WebSocket-Protocol": "v4.channel.k8s.io"}, ""),
        ({"Authorization": "Bearer x", "Sec-WebSocket-Protocol":
          "base64url.bearer.authorization.k8s.io.YWJj"}, "x"),
    ],
)  # fmt: skip
def test_where_a_token_stands(headers: dict[str, str], token: str) -> None:
    assert bearer_token(CIMultiDict(headers)) == token


async def test_token_files_as_upstream_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text(
        '# tokens\n\ntoken1,user1,uid1\n"tok,en2","us""er2",uid2,"group1, group2,group3"\n'
        " token3 , user3 , uid3 , group1\n token4,user4,,\n"
    )
    authenticator = TokenFileAuthenticator(path, AUDIENCES)

    async def user(token: str) -> Any:
        found = await authenticator.authenticate(token, AUDIENCES)
        return found and (found.user.name, found.user.uid, found.user.groups)

    assert await user("token1") == ("user1", "uid1", ())
    assert await user("tok,en2") == ('us"er2', "uid2", ("group1", "group2", "group3"))
    assert await user("token3") == ("user3", "uid3", ("group1",))
    assert await user("token4") == ("user4", "", ())
    assert await user("token") is None
    assert await user("# tokens") is None
    assert await authenticator.authenticate("token1", ("vault",)) is None


@pytest.mark.parametrize("text", ["t,u\n", ",u,1\n", "t,,1\n", 't,u,1,"g\n'])
def test_token_files_that_are_broken(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tokens.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tokens\.csv:1"):
        TokenFileAuthenticator(path)


def bootstrap_secret(**changes: str | None) -> Any:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-authentication": "true",
        "auth-extra-groups": "system:bootstrappers:workers,system:bootstrappers:a",
        "expiration": (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="seconds"),
        **{key.replace("_", "-"): value for key, value in changes.items() if key != "type"},
    }
    return {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": changes.get("type") or "bootstrap.kubernetes.io/token",
        "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items() if v is not None},
    }


SECRETS = "/api/v1/namespaces/kube-system/secrets"
BOOTSTRAP = "abcdef.0123456789abcdef"


async def test_a_bootstrap_token(api: Served) -> None:
    assert (await whoami(api, BOOTSTRAP))[0] == 401
    await api.json("POST", SECRETS, 201, json=bootstrap_secret())
    code, user = await whoami(api, BOOTSTRAP)
    assert (code, user) == (
        201,
        {
            "username": "system:bootstrap:abcdef",
            "groups": [
                "system:bootstrappers",
                "system:bootstrappers:a",
                "system:bootstrappers:workers",
                "system:authenticated",
            ],
        },
    )
    assert (await whoami(api, BOOTSTRAP[:-1] + "0"))[0] == 401
    status = await reviewed(api, BOOTSTRAP)
    assert (status["authenticated"], status["audiences"]) == (True, list(AUDIENCES))
    assert "error" in await reviewed(api, BOOTSTRAP, ["vault"])
    await api.json("DELETE", f"{SECRETS}/bootstrap-token-abcdef")
    assert (await whoami(api, BOOTSTRAP))[0] == 401


NO_TOKENS: list[dict[str, Any]] = [
    {"expiration": "2020-01-01T00:00:00Z"},
    {"expiration": "never"},
    {"usage_bootstrap_authentication": "false"},
    {"usage_bootstrap_authentication": None},
    {"token_id": "abcdeg"},
    {"token_secret": None},
    {"type": "Opaque"},
    {"auth_extra_groups": "system:masters"},
    {"auth_extra_groups": "system:bootstrappers:"},
]


async def test_bootstrap_tokens_that_are_none(api: Served) -> None:
    for changes in NO_TOKENS:
        await api.json("POST", SECRETS, 201, json=bootstrap_secret(**changes))
        assert (await whoami(api, BOOTSTRAP))[0] == 401
        await api.json("DELETE", f"{SECRETS}/bootstrap-token-abcdef")


async def test_token_reviews(api: Served) -> None:
    status = await reviewed(api, GUEST_TOKEN)
    assert status == {
        "authenticated": True,
        "user": {"username": "bob", "uid": "2", "groups": ["system:authenticated"]},
        "audiences": list(AUDIENCES),
    }
    assert await reviewed(api, "wrong") == {"user": {}, "error": "invalid bearer token"}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    refused = await api.json("POST", path, 400, json={"spec": {}})
    assert refused["message"] == "token is required for TokenReview in authentication"


async def ask(api: Served, path: str, headers: dict[str, str] | None = None) -> int:
    connector = aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(api.url + path, headers=headers) as answer,
    ):
        return answer.status


async def test_nobody_is_somebody_when_that_is_allowed(tmp_path: Path) -> None:
    settings = AuthenticationSettings(anonymous=True)
    async with cluster(tmp_path, authentication=settings, authorizer=Rights()) as api:
        code, user = await whoami(api)
        assert (code, user) == (
            201, {"username": "system:anonymous", "groups": ["system:unauthenticated"]},
        )  # fmt: skip
        # A token nobody knows is not the same as none.
        code, status = await whoami(api, "wrong")
        assert (code, status["message"]) == (401, "Unauthorized")
        assert (await reviewed(api, "wrong"))["error"] == "invalid bearer token"
        assert (await whoami(api, TOKEN))[1]["username"] == "root"


async def test_nobody_on_some_paths_only(tmp_path: Path) -> None:
    settings = AuthenticationSettings(anonymous=True, anonymous_paths=("/healthz", "/readyz"))
    async with cluster(tmp_path, authentication=settings, authorizer=Rights()) as api:
        assert await ask(api, "/healthz?verbose") == 200
        for path in ("/version", "/healthz/", "/healthz/ping", "/api/v1/pods"):
            assert await ask(api, path) == 401


async def test_nobody_is_the_rule(api: Served) -> None:
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=api.client_tls(certificate=False))
        ) as session,
        session.post(api.url + REVIEW, json=WHOAMI) as answer,
    ):
        assert answer.status == 401
        assert await answer.json() == {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
        }  # fmt: skip
