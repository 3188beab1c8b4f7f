"""Asking a test server as somebody else than its administrator."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from support.apiserver import Served

from controlplane.apiserver.authz import Decision, Verdict


@dataclass(slots=True)
class Rights:
    """An authorizer that allows everything but what `refused` names, as (verb, resource/subresource, name)."""

    refused: set[tuple[str, str, str]] = field(default_factory=set)
    asked: list[Any] = field(default_factory=list)

    async def authorize(self, attributes: Any) -> Any:
        info = attributes.info
        self.asked.append(attributes)
        resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        allowed = (info.verb, resource, info.name) not in self.refused
        return Decision(Verdict.ALLOW if allowed else Verdict.NO_OPINION)


REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
WHOAMI = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
TOKEN_REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"


async def whoami(
    api: Served,
    token: str = "",
    *,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> tuple[int, Any]:
    """Status, and the user info or the refusal's Status object."""
    connector = aiohttp.TCPConnector(ssl=tls or api.client_tls(certificate=False))
    pairs = [*headers, *([("Authorization", f"Bearer {token}")] if token else [])]
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(api.url + REVIEW, json=WHOAMI, headers=pairs) as answer,
    ):
        body = await answer.json(content_type=None)
        return answer.status, body["status"]["userInfo"] if answer.status == 201 else body


async def reviewed(api: Served, token: str, audiences: Sequence[str] = ()) -> Any:
    """The status of a TokenReview."""
    body = {"spec": {"token": token, **({"audiences": list(audiences)} if audiences else {})}}
    return (await api.json("POST", TOKEN_REVIEW, 201, json=body))["status"]


async def requested(api: Served, namespace: str, name: str, spec: Any = None, status: int = 201) -> Any:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    return await api.json("POST", path, status, json={"spec": spec or {}})


async def account(api: Served, name: str, namespace: str = "default") -> Any:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    return await api.json("POST", path, 201, json={"metadata": {"name": name}})
