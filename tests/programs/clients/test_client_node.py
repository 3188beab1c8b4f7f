"""@kubernetes/client-node, the JavaScript client, as a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest
from support.client_world import POD
from support.live import Live

HERE = Path(__file__).parent
MODULES = HERE.parents[2] / ".venv" / "node"
LIMIT = 60

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node 20 or newer"),
    pytest.mark.skipif(
        not (MODULES / "node_modules" / "@kubernetes" / "client-node").is_dir(),
        reason="needs @kubernetes/client-node (labs/install --tests gets it where npm is)",
    ),
]


async def test_a_story(server: Live) -> None:
    server.kubelet.log = ["one", "two"]
    process = await asyncio.create_subprocess_exec(
        "node",
        str(HERE / "client_node.mjs"),
        env={
            **os.environ,
            "KUBECONFIG": server.kubeconfig(),
            "NODE_MODULES_OF": f"{MODULES}/",
            "POD": json.dumps(POD),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    story = json.loads(out)
    assert (story["again"], story["conflict"], story["missing"]) == (409, 409, 404)
    assert story["listed"] == ["a", "b"]
    assert story["events"] == ["add a", "add b", "add c", "delete b"]
    assert story["exec"] == ["hi\n", "Failure", "3"]
    assert story["log"] == "one\ntwo\n"
    asked = server.asked
    assert asked.lines()[0] == "POST /api/v1/namespaces/default/configmaps 201"
    assert asked.types("PATCH") == {
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    }
    assert "GET /api/v1/namespaces/default/pods/p/exec" in asked.methods()
