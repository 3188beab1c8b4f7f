"""All methods of all paths in our OpenAPI documents, with bodies and queries that are good, odd and broken.

Seeded: a failure names the request, and the same seed sends it again. For long runs:

    NETKIT_FUZZ_SEED=7 NETKIT_FUZZ_ROUNDS=1000 .venv/bin/python -m pytest tests/integration/fuzz
"""

from __future__ import annotations

import asyncio
import gc
import os
import traceback
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

import pytest
from support.apiserver import Served, cluster
from support.fuzzing.answers import ADMIN, Answer, ask, fault
from support.fuzzing.operations import Operation, operations
from support.fuzzing.requests import Requests

from controlplane.apiserver.messages import ApiRequest

SEED = int(os.environ.get("NETKIT_FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("NETKIT_FUZZ_ROUNDS", "12"))
"""How often each operation is asked in one test."""
GROWTH = 256 * 1024 * 1024
"""Bytes the process may grow by in `ROUNDS` rounds of a default run; a leak of bodies is far beyond."""
NAMESPACES = ("default", "fuzz")
NOT_STORED = ("Review", "Eviction", "Binding", "TokenRequest", "Scale", "PodExecOptions")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _namespaces(api: Served) -> None:
    for name in NAMESPACES:
        body = f'{{"metadata":{{"name":"{name}"}}}}'.encode()
        await ask(api, ApiRequest("POST", "/api/v1/namespaces", (), {}, body, ADMIN))


async def _unreadable(api: Served, operation: Operation, request: ApiRequest, answer: Answer) -> str:
    """What was created must be there, as it was answered."""
    dry = any(name == "dryRun" and value for name, value in request.query)
    if answer.code != 201 or operation.method != "POST" or dry or operation.kind.endswith(NOT_STORED):
        return ""
    if request.path.count("/") != operation.path.count("/") or answer.content_type != "application/json":
        return ""
    obj = answer.object
    if obj.get("kind") != operation.kind:
        return ""
    path = f"{request.path}/{obj['metadata']['name']}"
    found = await ask(api, ApiRequest("GET", path, (), {"accept": "application/json"}, b"", ADMIN))
    if found.code != 200 or found.object != obj:
        return f"created, but GET {path} answers {found.code} {found.body[:300]!r}"
    return ""


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    """The exceptions that the server logged, where each was raised first."""
    traces = [record.exc_info[1:] for record in caplog.records if record.exc_info]
    return "".join(f" [{error!r} at {_place(trace)}]" for error, trace in traces)


def _place(trace: TracebackType | None) -> str:
    *_, frame = traceback.extract_tb(trace) or [None]
    return f"{frame.filename}:{frame.lineno}" if frame else "?"


def _shown(request: ApiRequest) -> str:
    return f"{request.method} {request.path} {list(request.query)} {dict(request.headers)} {request.body[:2000]!r}"


@pytest.mark.parametrize("part", range(3))
async def test_every_operation_answers_whatever_it_is_asked(
    part: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = Random(SEED * 1000 + part)
    faults: list[str] = []
    codes: dict[int, int] = {}
    async with cluster(tmp_path) as api:
        every = await operations(api)
        requests = Requests(random)
        tasks, resident = 0, 0
        for number in range(ROUNDS):
            if number == ROUNDS // 3:
                # By now every version of every kind has its cache.
                tasks, resident = len(asyncio.all_tasks()), _resident()
            if number % 5 == 4:
                # Custom resources come and go with their definitions.
                every = await operations(api)
            await _namespaces(api)
            for operation in every:
                request = requests.of(operation)
                try:
                    answer = await ask(api, request)
                except TimeoutError:
                    faults.append(f"no answer: {_shown(request)}")
                    continue
                found = fault(answer) or await _unreadable(api, operation, request, answer)
                if found:
                    faults.append(f"{found}{_logged(caplog)}: {_shown(request)}")
                caplog.clear()
                codes[answer.code] = codes.get(answer.code, 0) + 1
                _learn(requests, operation, answer)
        assert not faults, "\n\n".join(faults[:20])
        gc.collect()
        assert _resident() - resident < GROWTH * max(1, ROUNDS // 12)
        assert len(asyncio.all_tasks()) <= tasks + 10
        await api.json("GET", "/api/v1/namespaces/default/pods")
    # The fuzzer itself must reach what lies behind the first checks.
    assert {200, 201, 400, 404, 405, 409, 422} <= set(codes)
    assert codes[200] + codes[201] > sum(codes.values()) / 10


def _learn(requests: Requests, operation: Operation, answer: Answer) -> None:
    if operation.action not in ("post", "put", "patch") or answer.code not in (200, 201):
        return
    if answer.content_type != "application/json":
        return
    obj: Any = answer.object
    if isinstance(obj, dict) and obj.get("kind") == operation.kind:
        requests.learn(operation, obj)
