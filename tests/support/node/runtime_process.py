"""A runtime process of its own for tests, a pod network namespace, and container configs for both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from netkit.kernel import netns
from netkit.kernel.ledger import Ledger
from netkit.node.runtime.client import RuntimeClient
from netkit.node.runtime.spec import ContainerConfig, ContainerState

_SERVE = """
import sys
from pathlib import Path
from netkit.node.runtime.main import run_runtime
from netkit.node.runtime.settings import RuntimeSettings
run_runtime(RuntimeSettings("node-1", Path(sys.argv[1]), Path(sys.argv[2])))
"""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class RuntimeProcess:
    """A runtime as the supervisor would run it, its client, and all exits seen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = Path(tempfile.gettempdir()) / f"nkrt-{uuid.uuid4().hex[:8]}.sock"
        self.client = RuntimeClient(self.socket)
        self.exits: dict[str, ContainerState] = {}
        self.changed = asyncio.Event()
        self.client.on_exit = self._exited
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        argv = [sys.executable, "-c", _SERVE, str(self.socket), str(self.directory / "runtime")]
        self.process = subprocess.Popen(argv)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _exited(self, state: ContainerState) -> None:
        self.exits[state.config.id] = state
        self.changed.set()

    async def exit_of(self, container: str, timeout: float = 60) -> ContainerState:
        async with asyncio.timeout(timeout):
            while container not in self.exits:
                self.changed.clear()
                await self.changed.wait()
        return self.exits[container]


@asynccontextmanager
async def runtime_process(directory: Path) -> AsyncIterator[RuntimeProcess]:
    runtime = RuntimeProcess(directory)
    runtime.launch()
    task = asyncio.create_task(runtime.client.run())
    try:
        async with asyncio.timeout(60):
            await runtime.client.connected()
        yield runtime
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert runtime.process is not None
        runtime.process.terminate()
        try:
            runtime.process.wait(10)
        except subprocess.TimeoutExpired:
            runtime.kill()
            raise
        with contextlib.suppress(FileNotFoundError):
            runtime.socket.unlink()


@contextmanager
def pod_network(directory: Path) -> Iterator[str]:
    """A fresh namespace with lo up, by name."""
    name = f"nknode-{uuid.uuid4().hex[:8]}"
    ledger = Ledger(directory / "ledger", "test")
    with netns.create(name, ledger) as namespace:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        assert namespace.name == name
        try:
            yield name
        finally:
            netns.delete(name, ledger)
            ledger.close()


def config(network: str, directory: Path, **changes: Any) -> ContainerConfig:
    """A container of the pod default/web in `network`."""
    name = uuid.uuid4().hex[:12]
    values: dict[str, Any] = {
        "id": name,
        "pod_namespace": "default",
        "pod_name": "web",
        "pod_uid": "uid-1",
        "name": "app",
        "attempt": 0,
        "network": network,
        "hostname": "web",
        "log_path": str(directory / "logs" / f"{name}.log"),
        "env": {"PATH": PATH, "HOME": "/root"},
    }
    return ContainerConfig(**{**values, **changes})


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


async def until(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """Wait until `condition()` is true; its value."""
    async with asyncio.timeout(timeout):
        while True:
            value = condition()
            if value:
                return value
            await asyncio.sleep(0.01)
    raise AssertionError(f"never happened: {what}")


def log_text(container: ContainerConfig) -> str:
    """The container's output without times and flags."""
    if not os.path.exists(container.log_path):
        return ""
    with open(container.log_path, encoding="utf-8") as file:
        return "".join(line.split(" ", 3)[3] for line in file)
