"""Every story with the real kubectl against a server with controllers, and with every other kubectl there is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served, cluster
from support.client_kubelet import RemoteKubelet
from support.client_wait import running
from support.cluster import ROOT, kubectl_minor, kubectl_program, minor_of
from support.kubectl import Kubectl
from support.stories import Narrator, load

from controlplane.apiserver.local_clients import component_clients
from controlplane.control_loop import ControllerSettings, run_controllers
from controlplane.resources.catalog import NODE

pytestmark = pytest.mark.kubectl

STORIES = sorted((Path(__file__).parent / "stories").glob("*.yaml"))
OTHERS = Path("/usr/lib/google-cloud-sdk/bin")
DEBIAN = ROOT / ".kubectl-debian" / "usr" / "bin" / "kubectl"
"""Debian's kubectl as `labs/install --tests` unpacks it."""
DEBIAN_MINOR = 20
LIMIT = 60.0


def others() -> list[Path]:
    """Further kubectl programs of this machine, and Debian's whether it is there or not."""
    found = [path for path in sorted(OTHERS.glob("kubectl.1.*")) if os.access(path, os.X_OK)]
    return [path for path in (*found, DEBIAN) if str(path) != kubectl_program()]


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


def pairs() -> Iterator[Any]:
    """Each story with each further kubectl it names."""
    for program in others():
        minor = DEBIAN_MINOR if program == DEBIAN else int(program.name.rpartition(".")[2])
        for path in STORIES:
            story = load(path)
            if minor >= story.needs and (story.kubectls is None or minor in story.kubectls):
                yield pytest.param(path, program, id=f"{path.stem}-1.{minor}")


@pytest.mark.parametrize(("story", "program"), list(pairs()))
async def test_story_with_another_kubectl(story: Path, program: Path, tmp_path: Path) -> None:
    if not program.exists():
        pytest.skip(f"needs {program} (labs/install --tests unpacks it where apt-get offers it)")
    await tell(story, tmp_path, str(program), minor_of(str(program)))


def test_there_are_cases_enough() -> None:
    assert sum(len(load(path).steps) for path in STORIES) >= 300
