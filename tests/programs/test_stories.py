"""Every story with the real kubectl against a server with controllers, and with every other kubectl there is."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.apiserver import Served, cluster
from support.client_kubelet import RemoteKubelet
from support.client_wait import running
from support.cluster import kubectl_minor, kubectl_program
from support.kubectl import Kubectl
from support.stories import Narrator, load

from controlplane.apiserver.server import component_clients
from controlplane.control_loop import ControllerSettings, run_controllers
from controlplane.resources.catalog import NODE

pytestmark = pytest.mark.kubectl

STORIES = sorted((Path(__file__).parent / "stories").glob("*.yaml"))
OTHERS = Path("/usr/lib/google-cloud-sdk/bin")
LIMIT = 20.0


def others() -> list[tuple[str, int]]:
    """Further kubectl programs of this machine, with their minor versions."""
    found = [
        (str(path), int(path.name.rpartition(".")[2]))
        for path in sorted(OTHERS.glob("kubectl.1.*"))
        if os.access(path, os.X_OK)
    ]
    debian = shutil.which("kubectl.debian")
    if debian:
        found.append((debian, 20))
    return [(program, minor) for program, minor in found if program != kubectl_program()]


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[Served]:
    """A server with all controllers and two nodes whose pods run by word only."""
    async with cluster(directory, disabled_admission=()) as served:
        clients = component_clients(served.server)
        kubelet = RemoteKubelet(clients.api_server, ("node1", "node2"))
        ca_pem = served.authority.certificate_pem.decode()
        settings = ControllerSettings(pki_dir=directory / "pki")
        async with running(run_controllers(clients, settings, ca_pem), kubelet.run()):
            async with asyncio.timeout(LIMIT):
                async for event in clients.api_server.watch(NODE):
                    conditions = event.object.get("status", {}).get("conditions", ())
                    if event.object["metadata"]["name"] == "node2" and conditions:
                        break
            yield served


async def tell(story_path: Path, directory: Path, program: str, minor: int) -> None:
    story = load(story_path)
    if minor < story.needs:
        pytest.skip(f"needs kubectl 1.{story.needs}, {program} is 1.{minor}")
    async with world(directory) as served:
        environment = Kubectl(served, directory).environment
        await Narrator(program, minor, directory, environment).tell(story)


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
async def test_story(story: Path, tmp_path: Path) -> None:
    program = kubectl_program()
    assert program is not None, "needs kubectl"
    await tell(story, tmp_path, program, kubectl_minor())


@pytest.mark.parametrize("program", others(), ids=lambda found: f"1.{found[1]}")
@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
async def test_story_with_another_kubectl(story: Path, program: tuple[str, int], tmp_path: Path) -> None:
    await tell(story, tmp_path, *program)


def test_there_are_cases_enough() -> None:
    assert sum(len(load(path).steps) for path in STORIES) >= 300
