"""Another API server behind this one, as people use it with kubectl."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.apiserver import Served, cluster
from support.extension import GROUP, NAMESPACE, Extension, extension_server
from support.kubectl import Kubectl

pytestmark = pytest.mark.kubectl

FLUNDER = f"""
apiVersion: {GROUP}/v1
kind: Flunder
metadata: {{name: a}}
"""


@pytest.fixture
async def extension(tmp_path: Path) -> AsyncIterator[Extension]:
    async with extension_server(tmp_path) as server:
        yield server


@pytest.fixture
async def api(tmp_path: Path, extension: Extension) -> AsyncIterator[Served]:
    async with cluster(tmp_path, extension.dial) as served:
        yield served


async def register(kubectl: Kubectl, extension: Extension) -> None:
    await kubectl("create", "namespace", NAMESPACE)
    for name, obj in (
        ("service", extension.service()),
        ("endpoints", extension.endpoints()),
        ("apiservice", extension.api_service()),
    ):
        path = kubectl.write(f"{name}.json", json.dumps(obj))
        await kubectl("create", "-n", NAMESPACE, "-f", path)
    await kubectl("wait", "--for=condition=Available", f"apiservice/v1.{GROUP}", "--timeout=30s")


async def test_kubectl_works_with_another_servers_objects(kubectl: Kubectl, extension: Extension) -> None:
    await register(kubectl, extension)
    row = (await kubectl("get", "apiservices", f"v1.{GROUP}", "--no-headers")).split()
    assert row[:3] == [f"v1.{GROUP}", f"{NAMESPACE}/api", "True"]
    local = (await kubectl("get", "apiservices", "v1.apps", "--no-headers")).split()
    assert local[:3] == ["v1.apps", "Local", "True"]
    resources = await kubectl("api-resources", f"--api-group={GROUP}", "--no-headers")
    assert resources.split() == ["flunders", "fl", f"{GROUP}/v1", "true", "Flunder"]
    assert f"{GROUP}/v1\n" in await kubectl("api-versions")
    path = kubectl.write("flunder.yaml", FLUNDER)
    assert await kubectl("create", "-f", path, "--validate=false") == f"flunder.{GROUP}/a created\n"
    assert (await kubectl("get", "fl", "-o", "name")) == f"flunder.{GROUP}/a\n"
    assert (await kubectl("get", "pets", "-o", "name")) == f"flunder.{GROUP}/a\n"
    assert json.loads(await kubectl("get", "flunder", "a", "-o", "json"))["legs"] == 3
    explained = await kubectl("explain", "flunder.legs")
    assert "How many it stands on." in explained
    assert await kubectl("delete", "flunder", "a", "--wait=false") == f'flunder.{GROUP} "a" deleted\n'
    assert "not found" in await kubectl.fails("get", "flunder", "a")


async def test_kubectl_says_what_is_not_there(kubectl: Kubectl, extension: Extension) -> None:
    await register(kubectl, extension)
    await kubectl("get", "flunders")
    await kubectl("delete", "service", "api", "-n", NAMESPACE)
    await kubectl("wait", "--for=condition=Available=False", f"apiservice/v1.{GROUP}", "--timeout=30s")
    row = (await kubectl("get", "apiservices", f"v1.{GROUP}", "--no-headers")).split()
    assert row[2:4] == ["False", "(ServiceNotFound)"]
    refused = await kubectl.fails("get", "--raw", f"/apis/{GROUP}/v1/flunders")
    assert (
        refused
        == "Error from server (ServiceUnavailable): the server is currently unable to handle the request\n"
    )
    # kubectl leaves out what discovery calls stale, and works on with the rest.
    resources = await kubectl("api-resources", "-o", "name")
    assert "deployments.apps\n" in resources
    assert GROUP not in resources
    assert "service/kubernetes" in await kubectl("get", "all", "-o", "name")
