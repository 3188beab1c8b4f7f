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
from controlplane.errors import Object, StatusError
from controlplane.resources.metrics import Measured, Usage

log = logging.getLogger(__name__)

KEPT_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_LARGEST_SUMMARY = 32 << 20
_LONGEST_WINDOW = 1e9
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
        except (OSError, Http1Error, StatusError, ValueError, KeyError, TypeError) as error:
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
    found = _object(summary)
    pods = {}
    for pod in found.get("pods") or ():
        reference, listed = _object(_object(pod)["podRef"]), pod.get("containers") or ()
        measured = {str(_object(each)["name"]): used for each in listed if (used := _usage(each)) is not None}
        # As metrics-server: a pod of which one container is not measured yet is not measured.
        if measured and len(measured) == len(listed):
            key = str(reference["namespace"]), str(reference["name"]), str(reference["uid"])
            longest = max((at for at, _ in measured.values()), key=lambda each: each.window)
            pods[key] = PodUsage(longest, {name: usage for name, (_, usage) in measured.items()})
    return NodeUsage(_usage(found["node"]), pods)


def _usage(part: Any) -> tuple[Measured, Usage] | None:
    of = _object(part)
    cpu, memory = _object(of.get("cpu") or {}), _object(of.get("memory") or {})
    rate, bytes_used = cpu.get("usageNanoCores"), memory.get("workingSetBytes")
    if rate is None or bytes_used is None:
        return None
    window = float(cpu.get("windowSeconds") or 0)
    if not 0 <= window < _LONGEST_WINDOW:
        raise ValueError(f"a window of {window} seconds")
    return Measured(str(cpu["time"]), window), Usage(max(int(rate), 0), max(int(bytes_used), 0))


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where an object belongs")
    return value
