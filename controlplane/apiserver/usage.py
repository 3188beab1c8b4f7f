"""What nodes and their pods use, as their kubelets tell it: asked when somebody wants to know, kept for a moment.

Called by `handlers/metrics.py`. A kubelet is asked at most once in `KEPT_SECONDS` and by one request at a time,
however many clients want to know; one that does not answer in time counts as not measured.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.apiserver.http1 import Http1Error
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.streams import Dial, answer, exchange, kubelet_backend
from controlplane.errors import Object, ServiceUnavailable
from controlplane.resources.metrics import Measured, Usage

log = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_LARGEST_SUMMARY = 32 << 20
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class PodUsage:
    measured: Measured
    containers: Mapping[str, Usage]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """`own` is None while the node itself is not measured yet; `pods` by (namespace, name, uid)."""

    own: tuple[Measured, Usage] | None
    pods: Mapping[tuple[str, str, str], PodUsage]


_NOTHING = NodeUsage(None, {})


class Kubelets:
    """Asks them through `dial`, under the certificate of `tls`."""

    def __init__(
        self, dial: Dial, tls: ssl.SSLContext | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._dial = dial
        self._tls = tls
        self._clock = clock
        self._known: dict[str, tuple[float, asyncio.Task[NodeUsage]]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def usage(self, nodes: Sequence[Object]) -> Mapping[str, NodeUsage]:
        """By the node's name. Nodes that cannot be asked have nothing to tell."""
        tasks = {node["metadata"]["name"]: self._asked(node) for node in nodes}
        if tasks:
            # Unlike `gather` this leaves the asking alone when one who waits goes away.
            await asyncio.wait(tasks.values())
        return {name: task.result() for name, task in tasks.items()}

    def forget(self, names: Sequence[str]) -> None:
        """Keep nothing of nodes that are not among these."""
        for name in self._known.keys() - set(names):
            del self._known[name]

    def _asked(self, node: Object) -> asyncio.Task[NodeUsage]:
        name = node["metadata"]["name"]
        known = self._known.get(name)
        now = self._clock()
        if known is not None and (not known[1].done() or now - known[0] < KEPT_SECONDS):
            return known[1]
        task = asyncio.create_task(self._ask(node), name=f"usage of {name}")
        self._known[name] = now, task
        return task

    async def _ask(self, node: Object) -> NodeUsage:
        name = node["metadata"]["name"]
        try:
            async with self._slots, asyncio.timeout(_ANSWER_SECONDS):
                backend = kubelet_backend(node, self._tls)
                far = await exchange(self._dial, backend, ApiRequest("GET", "/"), "/stats/summary")
                response = answer(far)
                assert not isinstance(response.body, bytes)
                body = await _whole(response.body)
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            return parse(orjson.loads(body))
        except (OSError, Http1Error, ServiceUnavailable, ValueError, KeyError, TypeError) as error:
            log.info("%s: usage not known: %s: %s", name, type(error).__name__, error)
            return _NOTHING


async def _whole(pieces: AsyncGenerator[bytes, None]) -> bytes:
    collected = bytearray()
    try:
        async for piece in pieces:
            collected += piece
            if len(collected) > _LARGEST_SUMMARY:
                raise ValueError(f"a summary of more than {_LARGEST_SUMMARY} bytes")
    finally:
        await pieces.aclose()
    return bytes(collected)


def parse(summary: Any) -> NodeUsage:
    """A kubelet's `/stats/summary`. What has no CPU rate yet is left out. Raises KeyError, TypeError, ValueError."""
    node = summary["node"]
    pods = {}
    for pod in summary.get("pods") or ():
        reference = pod["podRef"]
        listed = pod.get("containers") or ()
        measured = {each["name"]: found for each in listed if (found := _usage(each)) is not None}
        # As metrics-server: a pod of which one container is not measured yet is not measured.
        if measured and len(measured) == len(listed):
            key = str(reference["namespace"]), str(reference["name"]), str(reference["uid"])
            window = max((found[0] for found in measured.values()), key=lambda one: one.window)
            pods[key] = PodUsage(window, {name: usage for name, (_, usage) in measured.items()})
    return NodeUsage(_usage(node), pods)


def _usage(part: Any) -> tuple[Measured, Usage] | None:
    cpu, memory = part.get("cpu") or {}, part.get("memory") or {}
    rate, bytes_used = cpu.get("usageNanoCores"), memory.get("workingSetBytes")
    if rate is None or bytes_used is None:
        return None
    measured = Measured(str(cpu["time"]), float(cpu.get("windowSeconds") or 0))
    return measured, Usage(max(int(rate), 0), max(int(bytes_used), 0))
