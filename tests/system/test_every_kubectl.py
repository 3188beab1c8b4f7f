"""Streams over every protocol, with every kubectl there is: exec, attach, cp, port-forward, run, debug."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

import pytest
from support.kubectls import kubectls
from support.space import Space, background
from support.terminal import Terminal
from support.workloads import busybox

SESSION = """
apiVersion: v1
kind: Pod
metadata: {name: session}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, stdin: true, tty: true, command: [sh]}]
"""


@pytest.fixture(params=["websockets", "spdy"])
def protocol(request: pytest.FixtureRequest, lab: Space, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen = "true" if request.param == "websockets" else "false"
    for what in ("REMOTE_COMMAND", "PORT_FORWARD"):
        monkeypatch.setitem(lab.cluster.environment, f"KUBECTL_{what}_WEBSOCKETS", chosen)
    return str(request.param)


@pytest.mark.parametrize("minor", kubectls() or [0])
def test_streams(
    lab: Space, protocol: str, minor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETKIT_TEST_KUBECTL", kubectls()[minor])
    page = "echo page > /srv/index.html; busybox httpd -f -p 127.0.0.1:8080 -h /srv"
    lab.apply(busybox("box", page))
    lab.apply(SESSION)
    for name in ("box", "session"):
        lab.ready(name)
    data = os.urandom(1_000_000)

    ran = lab.run("exec", "-i", "box", "--", "sh", "-c", "cat; echo err >&2; exit 6", stdin=data)
    assert (ran.returncode, ran.stdout == data, ran.stderr.startswith(b"err\n")) == (6, True, True)
    with Terminal(lab, "exec", "-it", "box", "--", "sh", size=(33, 101)) as terminal:
        terminal.say('until [ "$(stty size)" = "33 101" ]; do sleep .05; done; stty size; tty; exit 4\n')
        terminal.until(r"33 101\r\n/dev/pts/\d+")
        assert terminal.wait() == 4
    with Terminal(lab, "attach", "-it", "session") as terminal:
        terminal.say("\n")
        terminal.until("# ")
        terminal.say("echo I am $$; exit 0\n")
        terminal.until(r"I am 1\r\n")
        assert terminal.wait() == 0

    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "data").write_bytes(data)
    lab.kubectl("cp", str(tmp_path / "tree"), "box:/tmp/tree")
    assert lab.sh("box", "sha256sum /tmp/tree/deep/data").split()[0] == hashlib.sha256(data).hexdigest()
    lab.kubectl("cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "data").read_bytes() == data

    with background(lab, "port-forward", "pod/box", ":8080") as forwarding:
        forwarding.until("the port", lambda lines: re.search(r"127\.0\.0\.1:(\d+)", "".join(lines)))
        (port,) = re.findall(r"127\.0\.0\.1:(\d+)", "".join(forwarding.lines))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", int(port)), 5) as connection:
                connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
                received = b""
                while chunk := connection.recv(4096):
                    received += chunk
            assert received.endswith(b"page\n")

    script = ("--restart=Never", "--", "sh", "-c", "cat; exit 5")
    once = lab.run("run", "-i", "--rm", "once", "--image=busybox", *script, stdin=b"hello\n")
    assert (once.returncode, b"hello" in once.stdout) == (5, True)
    if minor >= 23:  # older ones speak of a kind that is gone
        arguments = ("--image=busybox", "--target=main", "-c", "dbg", "--", "sh", "-c", "sleep 1; ps ax")
        debugged = lab.run("debug", "-i", "box", *arguments)
        assert debugged.returncode == 0
        assert b"busybox httpd" in debugged.stdout
