"""What must hold for every answer, whatever was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from support.apiserver import Served

from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.apiserver.user import UserInfo

ADMIN = UserInfo("root", groups=("system:masters", "system:authenticated"))
LIMIT = 30.0
"""Seconds after which an answer counts as never coming, on a very busy machine."""
SERVER_MAY_FAIL = (
    "error dialing backend",
    "error trying to reach service",
    "failed calling webhook",
    "no preferred addresses found",
    "address not allowed",
    "no endpoints available",
    "no service port",
    "no port",
    "range is full",
    # A custom resource without what the scale subresource's paths name (`customresource/etcd.go`).
    "the spec replicas field",
)
"""5xx answers that upstream gives too, in its words: mostly of another server's fault."""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    body: bytes
    content_type: str

    @property
    def object(self) -> Any:
        return orjson.loads(self.body)


async def ask(api: Served, request: ApiRequest) -> Answer:
    """The answer to one request in the same process; of watches the first piece. Raises TimeoutError for hangs."""
    async with asyncio.timeout(LIMIT):
        response = await api.server.handle(request)
        return Answer(response.status, await _body(response), response.headers.get("Content-Type", ""))


async def _body(response: ApiResponse) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    if not response.is_watch:
        try:
            return b"".join([piece async for piece in response.body])
        finally:
            await response.body.aclose()
    try:
        async with asyncio.timeout(0.05):
            return await anext(response.body, b"")
    except TimeoutError:
        return b""
    finally:
        await response.body.aclose()


def fault(answer: Answer, allowed: Sequence[str] = SERVER_MAY_FAIL) -> str:
    """What is wrong with an answer, "" when nothing is.

    A 500 without a reason is upstream's answer to an applied object that does not fit its type
    (`errors.Unclassified`); every other one is a fault, unless it tells of another server.
    """
    if answer.code < 400:
        return ""
    try:
        status = answer.object
    except ValueError:
        return f"{answer.code} without a Status: {answer.body[:200]!r}"
    if not isinstance(status, dict) or status.get("kind") != "Status" or status.get("status") != "Failure":
        return f"{answer.code} without a Status: {answer.body[:200]!r}"
    if status.get("code") != answer.code:
        return f"{answer.code} with a Status of {status.get('code')}"
    message = status.get("message")
    if not isinstance(message, str) or not message:
        return f"{answer.code} without words"
    if answer.code >= 500 and not any(words in message for words in allowed):
        if answer.code == 500 and "reason" not in status:
            return ""
        if answer.code == 504 and status.get("reason") == "Timeout":
            return ""
        return f"{answer.code}: {message[:300]}"
    return ""
