"""What the first process of a cluster tells the waiting command when the machine cannot be built."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest

from netkit.cluster import launch as module
from netkit.cluster.config import ClusterConfig
from netkit.cluster.plan import Plan
from netkit.cluster.profile import Profile
from netkit.fabric.segment import CANDIDATES
from netkit.kernel.errors import KernelError


@pytest.mark.parametrize(
    ("error", "text", "hint"),
    [
        (
            KernelError("ip link add node1 type veth", "lab.switch", errno.EOPNOTSUPP),
            "lab.switch: ip link add node1 type veth: Operation not supported",
            "netkit doctor",
        ),
        (KernelError("unshare", "", errno.EPERM), "unshare: Operation not permitted", "need root"),
        (KernelError("mount", hint="mount it first"), "mount", "mount it first"),
    ],
)
def test_a_kernel_that_cannot_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: KernelError, text: str, hint: str
) -> None:
    profile = Profile("lab", tmp_path)
    profile.logs.mkdir(parents=True)

    def build(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, "build", build)
    monkeypatch.setattr(module, "log_to", lambda path: None)
    monkeypatch.setattr(os, "setsid", lambda: None)
    reader, writer = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as loopback:
        assert module.launch(Plan(ClusterConfig(), CANDIDATES[0], 1), profile, loopback, writer) == 1
    os.close(writer)
    with os.fdopen(reader) as told:
        message = json.loads(told.read())
    assert message["error"] == text
    assert hint in message["hint"]
