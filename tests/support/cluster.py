"""A real cluster for system tests, driven the way a user does: by the command line and by kubectl."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.host import run

ROOT = Path(__file__).resolve().parents[2]
NETKIT = str(ROOT / ".venv" / "bin" / "netkit")
T = TypeVar("T")


def kubectl_program() -> str | None:
    """The kubectl to test with: NETKIT_TEST_KUBECTL, else 1.32 by its own name, else whatever the PATH has."""
    chosen = os.environ.get("NETKIT_TEST_KUBECTL")
    pinned = "/usr/lib/google-cloud-sdk/bin/kubectl.1.32"
    return chosen or (pinned if os.access(pinned, os.X_OK) else shutil.which("kubectl"))


def kubectl_minor() -> int:
    """The N of the kubectl's version 1.N, 0 when there is none."""
    program = kubectl_program()
    return 0 if program is None else minor_of(program)


@functools.cache
def minor_of(kubectl: str) -> int:
    """The N of the version 1.N of that kubectl."""
    version = json.loads(run(kubectl, "version", "--client", "-o", "json").stdout)["clientVersion"]
    return int(version["minor"].rstrip("+"))


def needs_kubectl(minor: int) -> pytest.MarkDecorator:
    """Skips a test on machines whose kubectl is older than 1.`minor`."""
    return pytest.mark.skipif(
        0 < kubectl_minor() < minor, reason=f"needs kubectl 1.{minor} or newer, here is 1.{kubectl_minor()}"
    )


def eventually(what: str, probe: Callable[[], T | None], seconds: float = 120.0) -> T:
    """The first true value of `probe`, asked again and again until the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what} (last: {value!r})")
        time.sleep(0.05)


class Cluster:
    """The cluster `name`. `environment` carries its own kubeconfig and state directory."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.kubeconfig = directory / "kubeconfig"
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(directory),
            "KUBECACHEDIR": str(directory / "cache"),
            "NO_COLOR": "1",
        }

    def netkit(
        self, *arguments: str, check: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        return run(NETKIT, *arguments, check=check, timeout=timeout, env=self.environment)

    def up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.netkit("up", "-p", self.name, *arguments)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.netkit("down", "-p", self.name)

    def kubectl(
        self, *arguments: str, check: bool = True, timeout: float = 180, stdin: str | None = None
    ) -> str:
        """kubectl's standard output; with check=False also its standard error, behind it."""
        program = kubectl_program()
        assert program, "kubectl is not installed"
        options: dict[str, Any] = {"env": self.environment}
        if stdin is not None:
            options["input"] = stdin
        result = run(program, *arguments, check=check, timeout=timeout, **options)
        return result.stdout if check else result.stdout + result.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def on(self, machine: str, *argv: str, check: bool = True, timeout: float = 120) -> str:
        """Standard output of a program run on a machine of the cluster; `netkit exec`, but started in a tenth of
        its time."""
        space = f"{self.name}.{machine}"
        return run("ip", "netns", "exec", space, *argv, check=check, timeout=timeout).stdout

    def curl(self, machine: str, url: str, seconds: float = 3.0) -> str:
        """The body, or "" when there was no answer in time."""
        return self.on(machine, "curl", "-s", "-m", str(seconds), url, check=False)

    def status(self) -> Any:
        """What `netkit status -o json` says, without starting the program."""
        from netkit.cluster.status import read_status  # not for the lanes that only ask for a kubectl

        return json.loads(json.dumps(asdict(read_status(self.name))))

    def errors_logged(self) -> list[str]:
        """Lines of the parts' logs that tell of errors and tracebacks, in the order of the parts."""
        folder = Path("/var/lib/netkit") / self.name / "logs"
        lines = [
            line for log in sorted(folder.iterdir()) for line in log.read_text(errors="replace").splitlines()
        ]
        return [line for line in lines if re.search(r" (ERROR|CRITICAL) |^Traceback|Warning: ", line)]

    def rollout(self, what: str, *options: str) -> None:
        self.kubectl("rollout", "status", what, "--timeout=120s", *options)

    def node_addresses(self) -> list[str]:
        return [
            address["address"]
            for node in self.get("nodes")["items"]
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        ]
