"""A namespace of its own on a test's cluster, so that tests on one cluster do not meet."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.cluster import Cluster, eventually, kubectl_program


class Space:
    """kubectl in one namespace. Make it with `space`."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def kubectl(
        self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 180
    ) -> str:
        return self.cluster.kubectl("-n", self.name, *arguments, check=check, stdin=stdin, timeout=timeout)

    def run(
        self, *arguments: str, stdin: bytes = b"", timeout: float = 180
    ) -> subprocess.CompletedProcess[bytes]:
        """kubectl with its exit code and both outputs, as bytes."""
        return subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, timeout=timeout, check=False,
            env=self.cluster.environment,
        )  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl here."""
        program = kubectl_program()
        assert program
        return [program, "-n", self.name, *arguments]

    def apply(self, manifest: str) -> str:
        return self.kubectl("apply", "-f", "-", stdin=manifest)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", self.name, *arguments)

    def items(self, *arguments: str) -> list[Any]:
        found: list[Any] = self.get(*arguments)["items"]
        return found

    def row(self, *arguments: str) -> list[str]:
        """The words of the one line `kubectl get --no-headers` prints."""
        return self.kubectl("get", "--no-headers", *arguments).split()

    def ready(self, name: str, seconds: float = 120) -> Any:
        """The pod, once it is Ready."""
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={seconds:.0f}s")
        return self.get("pod", name)

    def shows(self, name: str, status: str, seconds: float = 120) -> list[str]:
        """The row of `kubectl get pod` once its STATUS is this."""

        def row() -> list[str] | None:
            words = self.row("pod", name)
            return words if words[2] == status else None

        return eventually(f"{name} shows {status}", row, seconds)

    def reaches(self, name: str, phase: str, seconds: float = 120) -> Any:
        """The pod once its phase is this."""

        def pod() -> Any:
            found = self.get("pod", name)
            return found if found["status"].get("phase") == phase else None

        return eventually(f"{name} is {phase}", pod, seconds)

    def container(self, name: str, index: int = 0) -> Any:
        """The status of one container of a pod."""
        return (self.get("pod", name)["status"].get("containerStatuses") or [{}])[index]

    def events(self, name: str) -> list[tuple[str, str, str]]:
        """(type, reason, message) of the events about the object of that name."""
        return [
            (event["type"], event["reason"], event["message"])
            for event in self.items("events", "--field-selector", f"involvedObject.name={name}")
        ]

    def event(self, name: str, reason: str, seconds: float = 120) -> str:
        """The message of an event with that reason, once there is one."""

        def message() -> str | None:
            return next((text for _, found, text in self.events(name) if found == reason), None)

        return eventually(f"event {reason} of {name}", message, seconds)

    def rollout(self, what: str = "deployment/web") -> str:
        """Wait until it is rolled out; what kubectl says."""
        return self.kubectl("rollout", "status", what, "--timeout=120s")

    def pods(self, label: str = "app=web") -> list[Any]:
        """The pods that are not being deleted."""
        return [pod for pod in self.items("pods", "-l", label) if "deletionTimestamp" not in pod["metadata"]]

    def sh(self, pod: str, script: str, *options: str) -> str:
        """Standard output of a shell script run in a pod."""
        return self.kubectl("exec", pod, *options, "--", "sh", "-c", script)


@contextmanager
def space(cluster: Cluster) -> Iterator[Space]:
    """A new namespace; deleted afterwards without waiting for it."""
    name = f"s-{uuid.uuid4().hex[:6]}"
    manifest = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"
    cluster.kubectl("create", "-f", "-", stdin=manifest)
    made = Space(cluster, name)
    eventually("the service account", lambda: "default" in made.kubectl("get", "sa", "-o", "name"))
    try:
        yield made
    finally:
        made.kubectl("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false", check=False)
        cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


class Lines:
    """A command in the background whose output lines are gathered as they come."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip("\n"))

    def until(self, what: str, probe: Callable[[list[str]], object], seconds: float = 120) -> None:
        eventually(what, lambda: probe(self.lines), seconds)

    def wait(self, seconds: float = 120) -> int:
        """The exit code, once it has ended by itself."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        return code

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)


@contextmanager
def background(where: Space, *arguments: str) -> Iterator[Lines]:
    """kubectl in the background."""
    lines = Lines(where.command(*arguments), where.cluster.environment)
    try:
        yield lines
    finally:
        lines.stop()


def since(begin: float) -> float:
    """Seconds since a `time.monotonic()`."""
    return time.monotonic() - begin


@contextmanager
def new_cluster(letter: str, directory: Path, *options: str) -> Iterator[Cluster]:
    """A cluster of three nodes, up, with further options of `netkit up`; down afterwards."""
    made = Cluster(f"{letter}{uuid.uuid4().hex[:6]}", directory)
    try:
        made.up(*options)
        yield made
    finally:
        made.netkit("down", "-p", made.name, check=False)
