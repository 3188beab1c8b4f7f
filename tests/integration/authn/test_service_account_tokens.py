"""Tokens of ServiceAccounts: asked for, bound, refused."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support.apiserver import Served, cluster
from support.authentication import Rights, account, requested, reviewed, whoami

from controlplane.apiserver.authn.keys import signing_key
from controlplane.apiserver.authn.settings import AuthenticationSettings

ISSUER = "https://kubernetes.default.svc.cluster.local"
POD = {
    "metadata": {"name": "web"},
    "spec": {"serviceAccountName": "robot", "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
}
PODS = "/api/v1/namespaces/default/pods"


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


async def test_a_token_is_its_account(api: Served) -> None:
    robot = await account(api, "robot")
    answer = await requested(api, "default", "robot")
    assert (answer["kind"], answer["metadata"]["name"]) == ("TokenRequest", "robot")
    assert answer["spec"] == {"audiences": [ISSUER], "expirationSeconds": 3600}
    token = answer["status"]["token"]
    header = jwt.get_unverified_header(token)
    assert set(header) == {"alg", "kid"}
    claims = claims_of(token)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (
        ISSUER, [ISSUER], "system:serviceaccount:default:robot",
    )  # fmt: skip
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["kubernetes.io"] == {
        "namespace": "default",
        "serviceaccount": {"name": "robot", "uid": robot["metadata"]["uid"]},
    }
    code, user = await whoami(api, token)
    assert (code, user["username"], user["uid"]) == (
        201, "system:serviceaccount:default:robot", robot["metadata"]["uid"],
    )  # fmt: skip
    assert user["groups"] == [
        "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated",
    ]  # fmt: skip
    assert user["extra"] == {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}


async def test_a_token_ends_with_its_pod(api: Served) -> None:
    await account(api, "robot")
    node = await api.json("POST", "/api/v1/nodes", 201, json={"metadata": {"name": "n1"}})
    pod = await api.json("POST", PODS, 201, json=POD)
    uid = pod["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid}
    answer = await requested(api, "default", "robot", {"boundObjectRef": reference})
    token = answer["status"]["token"]
    _, user = await whoami(api, token)
    extra = {key.rpartition("/")[2]: values for key, values in user["extra"].items()}
    assert extra["pod-name"] == ["web"]
    assert extra["pod-uid"] == [uid]
    assert extra["node-name"] == ["n1"]
    assert extra["node-uid"] == [node["metadata"]["uid"]]
    await api.json("DELETE", f"{PODS}/web?gracePeriodSeconds=0")
    code, status = await whoami(api, token)
    assert (code, status["message"]) == (401, "Unauthorized")
    assert "service account token has been invalidated" in (await reviewed(api, token))["error"]
    again = await api.json("POST", PODS, 201, json=POD)
    assert again["metadata"]["uid"] != uid
    assert "does not match service account pod ref claim" in (await reviewed(api, token))["error"]


async def test_a_token_ends_with_its_account_secret_or_node(api: Served) -> None:
    await account(api, "robot")
    await api.json("POST", "/api/v1/nodes", 201, json={"metadata": {"name": "n1"}})
    secrets = "/api/v1/namespaces/default/secrets"
    await api.json("POST", secrets, 201, json={"metadata": {"name": "s"}})
    tokens = []
    for kind, name in (("Node", "n1"), ("Secret", "s")):
        spec = {"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}}
        tokens.append((await requested(api, "default", "robot", spec))["status"]["token"])
    plain = (await requested(api, "default", "robot"))["status"]["token"]
    for token in (*tokens, plain):
        assert (await whoami(api, token))[0] == 201
    await api.json("DELETE", "/api/v1/nodes/n1")
    await api.json("DELETE", f"{secrets}/s")
    for token in tokens:
        assert (await whoami(api, token))[0] == 401
    assert (await whoami(api, plain))[0] == 201
    await api.json("DELETE", "/api/v1/namespaces/default/serviceaccounts/robot")
    assert 'serviceaccounts "robot" not found' in (await reviewed(api, plain))["error"]
    await account(api, "robot")
    assert "does not match claim" in (await reviewed(api, plain))["error"]


Forge = Callable[[dict[str, Any], Any, str], str]


def resign(claims: dict[str, Any], key: Any, kid: str) -> str:
    return jwt.encode(claims, key.key, algorithm="ES256", headers={"kid": kid})


def changed(**more: Any) -> Forge:
    return lambda claims, key, kid: resign(claims | more, key, kid)


def by_nobody(claims: dict[str, Any], key: Any, kid: str) -> str:
    return jwt.encode(claims, None, algorithm="none", headers={"kid": kid})


def by_other_key(claims: dict[str, Any], key: Any, kid: str) -> str:
    other = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, other, algorithm="ES256", headers={"kid": kid})


def by_other_algorithm(claims: dict[str, Any], key: Any, kid: str) -> str:
    other = rsa.generate_private_key(65537, 2048)
    return jwt.encode(claims, other, algorithm="RS256", headers={"kid": kid})


def by_public_key_as_secret(claims: dict[str, Any], key: Any, kid: str) -> str:
    return jwt.encode(claims, f"{kid}-made-long-enough-for-a-secret", algorithm="HS256", headers={"kid": kid})


def by_public_key_pem_as_secret(claims: dict[str, Any], key: Any, kid: str) -> str:
    """What the library refuses to make: HS256 with the public key, as everybody can fetch it, for a secret."""
    pem = key.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return by_hand({"alg": "HS256", "kid": kid}, claims, lambda text: hmac.digest(pem, text, "sha256"))


def by_hand(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
    def coded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = f"{coded(json.dumps(header).encode())}.{coded(json.dumps(claims).encode())}"
    return f"{text}.{coded(sign(text.encode()))}"


def bringing_its_key(claims: dict[str, Any], key: Any, kid: str) -> str:
    """The header brings the key, and says where to fetch it."""
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(own.public_key()))
    more = {
        "kid": kid,
        "jwk": {**jwk, "kid": kid},
        "jku": "https://127.0.0.1:1/keys",
        "x5u": "file:///etc/passwd",
    }
    return jwt.encode(claims, own, algorithm="ES256", headers=more)


def named(kid: Any) -> Forge:
    return lambda claims, key, _: by_hand({"alg": "ES256", "kid": kid}, claims, lambda text: b"\0" * 64)


def tampered(claims: dict[str, Any], key: Any, kid: str) -> str:
    head, _, signature = resign(claims, key, kid).split(".")
    payload = base64.urlsafe_b64encode(json.dumps(claims | {"jti": "other"}).encode()).rstrip(b"=").decode()
    return f"{head}.{payload}.{signature}"


def without_signature(claims: dict[str, Any], key: Any, kid: str) -> str:
    return resign(claims, key, kid).rpartition(".")[0] + "."


BAD: list[tuple[Forge, str]] = [
    (by_nobody, "invalid signature"),
    (by_other_key, "invalid signature"),
    (by_other_algorithm, "invalid signature"),
    (by_public_key_as_secret, "invalid signature"),
    (by_public_key_pem_as_secret, "invalid signature"),
    (bringing_its_key, "invalid signature"),
    (named("../../../../dev/null"), "no keys found"),
    (named("' OR 1=1 --"), "no keys found"),
    (named(""), ""),
    (named(None), ""),
    (named(["a"]), ""),
    (named({"a": 1}), ""),
    (tampered, "invalid signature"),
    (without_signature, "invalid signature"),
    (lambda c, k, kid: resign(c, k, "unknown"), "no keys found"),
    (changed(iss="https://elsewhere"), "invalid bearer token"),
    (changed(aud=["vault"]), "is invalid for the target audiences"),
    (changed(exp=int(time.time()) - 100), "service account token has expired"),
    (changed(nbf=int(time.time()) + 1000), "service account token is not valid yet"),
    (changed(iat=int(time.time()) + 1000), "service account token is issued in the future"),
    (changed(exp="never"), "exp is not a number"),
    (changed(sub="system:serviceaccount:kube-system:root"), "sub is invalid"),
    (changed(**{"kubernetes.io": None}), "sub is invalid"),
    (changed(**{"kubernetes.io": "x"}), "sub is invalid"),
    (lambda c, k, kid: "a.b.c", "invalid bearer token"),
    (lambda c, k, kid: "..", "invalid bearer token"),
    (lambda c, k, kid: "e30.e30.", "invalid bearer token"),
    (lambda c, k, kid: "\xff" * 10, "invalid bearer token"),
    (lambda c, k, kid: "x" * 40_000, "invalid bearer token"),
]  # fmt: skip


async def test_bad_tokens_are_refused(api: Served) -> None:
    await account(api, "robot")
    good = (await requested(api, "default", "robot"))["status"]["token"]
    key = signing_key((Path(api.admin.key).parent / "sa.key").read_bytes())
    assert (await reviewed(api, resign(claims_of(good), key, key.public.id)))["authenticated"] is True
    for forge, told in BAD:
        bad = forge(claims_of(good), key, key.public.id)
        status = await reviewed(api, bad)
        assert "authenticated" not in status, told
        assert told in status["error"]
        code, refusal = await whoami(api, bad.encode().decode("latin-1"))
        assert (code, refusal["message"]) == (401, "Unauthorized")


async def test_audiences(api: Served) -> None:
    await account(api, "robot")
    token = (await requested(api, "default", "robot", {"audiences": ["vault", "other"]}))["status"]["token"]
    assert (await whoami(api, token))[0] == 401
    status = await reviewed(api, token, ["vault", "more"])
    assert (status["authenticated"], status["audiences"]) == (True, ["vault"])
    assert "error" in await reviewed(api, token)
    assert "error" in await reviewed(api, token, ["none"])


REFUSED: list[tuple[Any, int, str]] = [
    ({"expirationSeconds": 599}, 422, 'TokenRequest.authentication.k8s.io "" is invalid: '
     "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"),
    ({"expirationSeconds": (1 << 32) + 1}, 422, "may not specify a duration larger than 2^32 seconds"),
    ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}, 404, 'pods "none" not found'),
    ({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}}, 400,
     'cannot bind token for serviceaccount "other" to pod running with different serviceaccount name.'),
    ({"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}, 400,
     'cannot bind token for serviceaccount "other" to object of type apps/v1, Kind=Deployment'),
    ({"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "wrong"}}, 409,
     "the UID in the bound object reference (wrong) does not match the UID in record"),
]  # fmt: skip


async def test_requests_that_are_refused(api: Served) -> None:
    await account(api, "robot")
    await account(api, "other")
    await api.json("POST", PODS, 201, json=POD)
    await api.json("POST", "/api/v1/namespaces/default/secrets", 201, json={"metadata": {"name": "s"}})
    for spec, code, message in REFUSED:
        status = await requested(api, "default", "other", spec, code)
        assert message in status["message"]


async def test_requests_name_what_the_url_names(api: Served) -> None:
    await account(api, "robot")
    path = "/api/v1/namespaces/default/serviceaccounts/robot/token"
    status = await api.json("POST", path, 422, json={"metadata": {"name": "x"}})
    assert "must match the service account name if specified" in status["message"]
    await requested(api, "default", "none", None, 404)


async def test_a_pods_own_token_lives_for_a_year_and_tells_when_it_should_have_ended(api: Served) -> None:
    await account(api, "robot")
    await api.json("POST", PODS, 201, json=POD)
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web"}
    spec = {"boundObjectRef": reference, "expirationSeconds": 3607}
    claims = claims_of((await requested(api, "default", "robot", spec))["status"]["token"])
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == 3607
    for other in ({"audiences": ["vault"]}, {"expirationSeconds": 3608}):
        claims = claims_of((await requested(api, "default", "robot", spec | other))["status"]["token"])
        assert "warnafter" not in claims["kubernetes.io"]


async def test_long_lives_are_shortened_with_a_warning(tmp_path: Path) -> None:
    settings = AuthenticationSettings(max_token_expiration=7200, service_account_issuers=("a", "https://old"))
    async with cluster(tmp_path, authentication=settings, authorizer=Rights()) as api:
        await account(api, "robot")
        path = "/api/v1/namespaces/default/serviceaccounts/robot/token"
        body = {"spec": {"expirationSeconds": 9000}}
        async with api.session.post(api.url + path, json=body) as answer:
            warning = answer.headers["Warning"]
            token = (await answer.json())["status"]["token"]
        assert "requested expiration of 9000 seconds shortened to 7200 seconds" in warning
        assert claims_of(token)["exp"] - claims_of(token)["iat"] == 7200
        key = signing_key((Path(api.admin.key).parent / "sa.key").read_bytes())
        old = resign(claims_of(token) | {"iss": "https://old"}, key, key.public.id)
        assert (await whoami(api, old))[0] == 201
        # An issuer that is no https URL cannot be asked for its keys.
        await api.json("GET", "/openid/v1/jwks", 404)


async def test_relying_parties_can_verify_tokens(api: Served) -> None:
    await account(api, "robot")
    token = (await requested(api, "default", "robot", {"audiences": ["vault"]}))["status"]["token"]
    document = await api.json("GET", "/.well-known/openid-configuration")
    assert document["issuer"] == ISSUER
    assert document["id_token_signing_alg_values_supported"] == ["ES256"]
    assert document["jwks_uri"] == f"{api.url}/openid/v1/jwks"
    async with api.session.get(document["jwks_uri"]) as answer:
        assert answer.content_type == "application/jwk-set+json"
        keys = jwt.PyJWKSet.from_dict(await answer.json(content_type=None))
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, algorithms=["ES256"], audience="vault", issuer=ISSUER)
    assert claims["sub"] == "system:serviceaccount:default:robot"
