"""Tokens that another server knows: it is asked by TokenReview, and its answers are kept for a while.

The way there is a kubeconfig file, as `--authentication-token-webhook-config-file` takes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.apiserver.authn.credentials import AuthenticationError, Identity, shared
from controlplane.apiserver.user import UserInfo
from controlplane.client.transport import ConnectionFailed, Response, Transport

log = logging.getLogger(__name__)

_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.5
_PAUSE_FACTOR = 1.5
_KEPT = 4096
_ENOUGH_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the server said of one token for some audiences; `until` on the monotonic clock."""

    identity: Identity | None
    until: float


class WebhookTokenAuthenticator:
    """Asks the server behind `transport`. `cache_seconds` is how long a yes or no counts."""

    def __init__(
        self,
        transport: Transport,
        cache_seconds: float,
        api_audiences: tuple[str, ...] = (),
        first_pause: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        self._transport = transport
        self._cache_seconds = cache_seconds
        self._api_audiences = api_audiences
        self._first_pause = first_pause
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Identity | None]] = {}

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        asked = "\0".join((token, *audiences)).encode("utf-8", "surrogateescape")
        key = hashlib.sha256(asked).digest()
        known = self._answers.get(key)
        if known is not None and known.until > time.monotonic():
            return known.identity
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._asked(key, token, audiences), name="token review")
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # Whoever leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    async def close(self) -> None:
        for task in list(self._asking.values()):
            task.cancel()
        await self._transport.close()

    async def _asked(self, key: bytes, token: str, audiences: tuple[str, ...]) -> Identity | None:
        identity = self._identity(await self._review(token, audiences), audiences)
        self._answers[key] = _Answer(identity, time.monotonic() + self._cache_seconds)
        if len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return identity

    async def _review(self, token: str, audiences: tuple[str, ...]) -> Mapping[str, Any]:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {"creationTimestamp": None},
            "spec": {"token": token, "audiences": list(audiences)},
            "status": {"user": {}},
        }
        body = orjson.dumps(review)
        headers = {"content-type": "application/json", "accept": "application/json, */*"}
        pause, fault = self._first_pause, ""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(pause)
                pause *= _PAUSE_FACTOR
            try:
                answer = await self._transport.request("POST", "", (), headers, body)
            except ConnectionFailed as error:
                fault = str(error)
                continue
            if answer.status == 429 or answer.status >= 500:
                fault = f"the webhook answered {answer.status}"
                continue
            return _status(answer)
        log.error("failed to make webhook authenticator request: %s", fault)
        raise AuthenticationError(f"webhook token review failed: {fault}")

    def _identity(self, status: Mapping[str, Any], audiences: tuple[str, ...]) -> Identity | None:
        if status.get("error"):
            raise AuthenticationError(str(status["error"]))
        if status.get("authenticated") is not True:
            return None
        told = status.get("audiences")
        # A server that knows nothing of audiences speaks for the API server alone.
        meant = shared(told if isinstance(told, list) and told else self._api_audiences, audiences)
        if audiences and not meant:
            return None
        return Identity(_user(status.get("user")), meant)


def _status(answer: Response) -> Mapping[str, Any]:
    if not 200 <= answer.status < 300:
        text = answer.body[:_ENOUGH_BYTES].decode("utf-8", "replace")
        raise AuthenticationError(f"the webhook answered {answer.status}: {text}")
    try:
        found = orjson.loads(answer.body)
    except ValueError as error:
        raise AuthenticationError(f"the webhook's answer is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("kind") != "TokenReview":
        raise AuthenticationError("the webhook did not answer with a TokenReview")
    if found.get("apiVersion") != "authentication.k8s.io/v1":
        raise AuthenticationError(
            f"webhook authenticator received unexpected response version {found.get('apiVersion')}"
        )
    status = found.get("status")
    return status if isinstance(status, dict) else {}


def _user(user: object) -> UserInfo:
    """Raises AuthenticationError for what is no UserInfo."""
    if not isinstance(user, dict) or not isinstance(user.get("username"), str):
        raise AuthenticationError("the webhook named no user")
    groups, extra = user.get("groups") or [], user.get("extra") or {}
    if not _texts(groups) or not isinstance(extra, dict) or not all(map(_texts, extra.values())):
        raise AuthenticationError("the webhook's user is malformed")
    uid = user.get("uid") or ""
    return UserInfo(
        user["username"], str(uid), tuple(groups), {key: tuple(value) for key, value in extra.items()}
    )


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
