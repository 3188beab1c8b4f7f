"""The Webhook authorizer: asks another server by SubjectAccessReview, as `--authorization-webhook-config-file` says.

Answers are remembered for a while, per question. A webhook that cannot be reached or lies has no opinion, and the
client is told that nobody knows. Called by the chain; owns its HTTP session, which `close` ends.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from controlplane.apiserver.authz.attributes import (
    NO_OPINION,
    Attributes,
    Decision,
    Requirement,
    RulesAnswer,
    Verdict,
)
from controlplane.apiserver.user import UserInfo
from controlplane.client.https import tls_context
from controlplane.client.kubeconfig import Credentials, load
from controlplane.errors import Object

log = logging.getLogger(__name__)

_CACHED = 8192
_CACHED_BYTES = 10_000
_ANSWER_BYTES = 1024 * 1024
_TRIES = 3
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`kubeconfig` names the server and the API server's own credentials there; times in seconds."""

    kubeconfig: Path
    authorized_ttl: float = 300.0
    unauthorized_ttl: float = 30.0
    timeout: float = 30.0


class WebhookAuthorizer:
    """Raises KubeconfigError when the file cannot be used."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._credentials = load(settings.kubeconfig)
        self._tls = _tls(self._credentials)
        self._answers: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def authorize(self, attributes: Attributes) -> Decision:
        spec = review_spec(attributes)
        key = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)
        known = self._answers.get(key)
        if known is not None and known[0] > time.monotonic():
            self._answers.move_to_end(key)
            return known[1]
        try:
            decision = _decision(await self._ask(spec))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            log.error("authorization webhook %s: %s", self._credentials.server, reason)
            return Decision(Verdict.NO_OPINION, "", f"authorization webhook: {reason}")
        settings = self._settings
        ttl = settings.authorized_ttl if decision.allowed else settings.unauthorized_ttl
        if ttl > 0 and len(key) <= _CACHED_BYTES:
            self._answers[key] = (time.monotonic() + ttl, decision)
            if len(self._answers) > _CACHED:
                self._answers.popitem(last=False)
        return decision

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        return RulesAnswer(
            incomplete=True, errors=("webhook authorizer does not support user rule resolution",)
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, spec: Object) -> object:
        """The webhook's answer, parsed. Raises what `authorize` catches; connections and 5xx are tried again."""
        body = orjson.dumps(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "metadata": {"creationTimestamp": None},
                "spec": spec,
                "status": {"allowed": False},
            }
        )
        async with asyncio.timeout(self._settings.timeout):
            for number in range(_TRIES):
                if number:
                    await asyncio.sleep(_PAUSE_SECONDS * number)
                try:
                    status, answer = await self._post(body)
                except (aiohttp.ClientConnectionError, ConnectionError):
                    if number == _TRIES - 1:
                        raise
                    continue
                if status < 500 or number == _TRIES - 1:
                    break
        if not 200 <= status < 300:
            raise ValueError(f"it answered with status {status}")
        return orjson.loads(answer)

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self._credentials.token:
            headers["authorization"] = f"Bearer {self._credentials.token}"
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=False)
        async with self._session.post(
            self._credentials.server, data=body, headers=headers, ssl=self._tls, allow_redirects=False
        ) as answer:
            received = bytearray()
            async for piece in answer.content.iter_chunked(64 * 1024):
                received += piece
                if len(received) > _ANSWER_BYTES:
                    raise ValueError("its answer is too long")
            return answer.status, bytes(received)


def _tls(credentials: Credentials) -> ssl.SSLContext | bool:
    if not credentials.server.startswith("https:"):
        return True
    return tls_context(credentials.ca, credentials.certificate or None, credentials.key or None)


def review_spec(attributes: Attributes) -> Object:
    """The question as the spec of a SubjectAccessReview."""
    user, info = attributes.user, attributes.info
    spec: Object = {"user": user.name}
    if info.is_resource:
        resource: Object = {
            "namespace": info.namespace,
            "verb": info.verb,
            "group": info.group,
            "version": info.version,
            "resource": info.resource,
            "subresource": info.subresource,
            "name": info.name,
        }
        spec["resourceAttributes"] = {key: value for key, value in resource.items() if value}
        for key, requirements in (("fieldSelector", attributes.fields), ("labelSelector", attributes.labels)):
            if requirements:
                spec["resourceAttributes"][key] = {"requirements": [_requirement(r) for r in requirements]}
    else:
        spec["nonResourceAttributes"] = {"path": info.path, "verb": info.verb}
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if user.uid:
        spec["uid"] = user.uid
    return spec


def _requirement(requirement: Requirement) -> Object:
    found: Object = {"key": requirement.key, "operator": requirement.operator}
    if requirement.values:
        found["values"] = list(requirement.values)
    return found


def _decision(answer: object) -> Decision:
    """Raises ValueError for an answer that is no review, or says yes and no at once."""
    if not isinstance(answer, dict) or answer.get("kind") != "SubjectAccessReview":
        raise ValueError("its answer is no SubjectAccessReview")
    status = answer.get("status")
    if not isinstance(status, dict):
        raise ValueError("its answer has no status")
    allowed, denied = status.get("allowed", False), status.get("denied", False)
    reason = status.get("reason", "")
    if not isinstance(allowed, bool) or not isinstance(denied, bool) or not isinstance(reason, str):
        raise ValueError("a field of its answer has the wrong type")
    if allowed and denied:
        raise ValueError("webhook subject access review returned both allow and deny response")
    if allowed:
        return Decision(Verdict.ALLOW, reason)
    if denied:
        return Decision(Verdict.DENY, reason)
    return Decision(Verdict.NO_OPINION, reason) if reason else NO_OPINION
