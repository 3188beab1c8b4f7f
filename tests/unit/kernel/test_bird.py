"""Talking to the routing daemon, and what is said when there is none."""

from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest

from netkit.cluster import routing
from netkit.cluster.config import parse
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile
from netkit.cluster.up import up
from netkit.kernel import bird
from netkit.kernel.errors import KernelError, Unsupported


def daemon(place: Path, *replies: str) -> tuple[Path, list[str], threading.Thread]:
    """Somebody who greets, and answers one command with each text; its socket, and what it was asked."""
    path, asked = place / "ctl", []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener:
            client, _ = listener.accept()
            with client, client.makefile("r") as lines:
                client.sendall(b"0001 BIRD 2.0.12 ready.\n")
                for reply in replies:
                    asked.append(lines.readline().strip())
                    client.sendall(reply.encode())

    thread = threading.Thread(target=serve)
    thread.start()
    return path, asked, thread


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        ("0003 Reconfigured\n", ["Reconfigured"]),
        ("1002-Name  Proto\n1002-a BGP\n1006-  BGP state: Active\n     more\n\n0000 \n", None),
        ("2002-Name\n 10.0.0.0/8\n0000 \n", ["Name", "10.0.0.0/8"]),
    ],
)
def test_replies_are_lines_without_their_numbers(tmp_path: Path, reply: str, lines: list[str] | None) -> None:
    path, asked, thread = daemon(tmp_path, reply)
    if lines is None:
        with pytest.raises(KernelError, match="not understood"):
            bird.ask(path, "show")
    else:
        assert bird.ask(path, "show") == lines
    thread.join()
    assert asked == ["show"]


def test_refusals_and_silence_are_errors(tmp_path: Path) -> None:
    path, _, thread = daemon(tmp_path, "8002 /x, line 3: syntax error\n")
    with pytest.raises(KernelError, match="line 3: syntax error"):
        bird.ask(path, "configure")
    thread.join()
    with pytest.raises(KernelError) as gone:
        bird.ask(tmp_path / "nobody", "configure")
    assert gone.value.is_not_found
    (tmp_path / "other").mkdir()
    path, _, thread = daemon(tmp_path / "other", "1002-half a\n")
    with pytest.raises(KernelError, match="closed the connection"):
        bird.ask(path, "show")
    thread.join()


def test_a_missing_daemon_is_refused_by_its_packages_name_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(Unsupported, match="bird is not installed"):
        bird.program()
    with pytest.raises(ClusterError) as refused:
        routing.require_daemon()
    assert refused.value.hint == "apt-get install bird2"
    monkeypatch.setattr("netkit.cluster.up.require_mode", lambda mode: None)
    with pytest.raises(
        ClusterError, match=r"network\.routes: bgp needs the daemon BIRD 2: bird is not installed"
    ):
        up(
            parse({"topology": "two-racks", "network": {"routes": "bgp"}}),
            tmp_path / "kubeconfig",
            lambda step: None,
        )
    assert not Profile("lab").exists
    assert not (tmp_path / "kubeconfig").exists()
