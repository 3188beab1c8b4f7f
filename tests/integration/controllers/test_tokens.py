"""Secrets that hold tokens: filled, cleaned away, used to sign."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import jwt
from support.apiserver import Served, cluster
from support.authentication import Rights, account, reviewed, whoami
from support.client_wait import running, until

from controlplane.apiserver.authn.keys import signing_key
from controlplane.apiserver.authn.service_account import legacy_token
from controlplane.apiserver.local_clients import local_transport
from controlplane.apiserver.pki import service_account_key
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.controllers.bootstrap_tokens.cleaner import TokenCleaner
from controlplane.controllers.bootstrap_tokens.signer import BootstrapSigner, detached_signature
from controlplane.controllers.service_account_token import ServiceAccountTokenController
from controlplane.resources.catalog import CONFIG_MAP, SECRET

SECRETS = "/api/v1/namespaces/default/secrets"


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[tuple[Served, Informers]]:
    async with cluster(directory, authorizer=Rights()) as api:
        client = Client(local_transport(api.server, UserInfo("controller", groups=("system:masters",))))
        informers = Informers(client)
        key = signing_key(service_account_key(directory / "pki"))
        parts = (
            ServiceAccountTokenController(client, informers, partial(legacy_token, key=key), "PEM"),
            TokenCleaner(client, informers),
            BootstrapSigner(client, informers),
        )
        async with running(informers.run(), *(part.run() for part in parts)):
            yield api, informers


def token_secret(name: str, of: str) -> Any:
    return {
        "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": of}},
        "type": "kubernetes.io/service-account-token",
    }


async def test_a_token_without_an_end(tmp_path: Path) -> None:
    async with world(tmp_path) as (api, informers):
        robot = await account(api, "robot")
        await api.json("POST", SECRETS, 201, json=token_secret("old", "robot"))
        seen = informers.of(SECRET)
        secret = await until(
            lambda: (s := seen.get("default", "old")) and s.get("data", {}).get("token") and s
        )
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        assert (data["ca.crt"], data["namespace"]) == ("PEM", "default")
        notes = secret["metadata"]["annotations"]
        assert notes["kubernetes.io/service-account.uid"] == robot["metadata"]["uid"]
        claims = jwt.decode(data["token"], options={"verify_signature": False})
        assert claims == {
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": "default",
            "kubernetes.io/serviceaccount/secret.name": "old",
            "kubernetes.io/serviceaccount/service-account.name": "robot",
            "kubernetes.io/serviceaccount/service-account.uid": robot["metadata"]["uid"],
            "sub": "system:serviceaccount:default:robot",
        }
        code, user = await whoami(api, data["token"])
        assert (code, user["username"]) == (201, "system:serviceaccount:default:robot")
        assert "extra" not in user
        label = {"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}}
        patch = {"Content-Type": "application/merge-patch+json"}
        await api.json("PATCH", f"{SECRETS}/old", json=label, headers=patch)
        assert "has been marked invalid" in (await reviewed(api, data["token"]))["error"]
        label["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"] = None  # type: ignore[assignment]
        await api.json("PATCH", f"{SECRETS}/old", json=label, headers=patch)
        assert (await whoami(api, data["token"]))[0] == 201
        # The Secret goes with its account.
        await api.json("DELETE", "/api/v1/namespaces/default/serviceaccounts/robot")
        await until(lambda: seen.get("default", "old") is None)
        assert "Token has been invalidated" in (await reviewed(api, data["token"]))["error"]


async def test_a_token_secret_of_nobody_goes(tmp_path: Path) -> None:
    async with world(tmp_path) as (api, informers):
        await account(api, "robot")
        await api.json("POST", SECRETS, 201, json=token_secret("lost", "nobody"))
        await api.json("POST", SECRETS, 201, json=token_secret("kept", "robot"))
        seen = informers.of(SECRET)
        await until(lambda: seen.get("default", "kept") and seen.get("default", "lost") is None)


def bootstrap_token(ends: timedelta) -> Any:
    data = {
        "token-id": "abcdef",
        "token-secret": "0123456789abcdef",
        "usage-bootstrap-signing": "true",
        "expiration": (datetime.now(UTC) + ends).isoformat(),
    }
    return {
        "metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": data,
    }


async def test_cluster_info_is_signed_as_long_as_a_token_is_good(tmp_path: Path) -> None:
    async with world(tmp_path) as (api, informers):
        info = {
            "metadata": {"name": "cluster-info"},
            "data": {"kubeconfig": "text", "jws-kubeconfig-gone00": "x"},
        }
        await api.json("POST", "/api/v1/namespaces/kube-public/configmaps", 201, json=info)
        path = "/api/v1/namespaces/kube-system/secrets"
        await api.json("POST", path, 201, json=bootstrap_token(timedelta(seconds=1.2)))
        seen = informers.of(CONFIG_MAP)
        signed = await until(
            lambda: (
                (m := seen.get("kube-public", "cluster-info")) and "jws-kubeconfig-abcdef" in m["data"] and m
            )
        )
        assert "jws-kubeconfig-gone00" not in signed["data"]
        header, payload, signature = signed["data"]["jws-kubeconfig-abcdef"].split(".")
        assert payload == ""
        whole = f"{header}.{base64.urlsafe_b64encode(b'text').rstrip(b'=').decode()}.{signature}"
        assert whole.split(".")[2] == detached_signature("text", "abcdef", "0123456789abcdef").split(".")[2]
        # Its time is over: the token goes, and the signature with it.
        await until(lambda: informers.of(SECRET).get("kube-system", "bootstrap-token-abcdef") is None)
        await until(lambda: list(seen.get("kube-public", "cluster-info")["data"]) == ["kubeconfig"])
