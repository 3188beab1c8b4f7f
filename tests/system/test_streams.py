"""kubectl's streams into pods: exec, attach, logs, cp, port-forward."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from pathlib import Path

import pytest
from support.cluster import eventually, needs_kubectl
from support.space import Space, background
from support.terminal import Terminal
from support.workloads import busybox


def test_exec_passes_streams_and_exit_codes(lab: Space) -> None:
    lab.apply(busybox("shell", "sleep infinity"))
    lab.ready("shell")
    for code in (0, 1, 42, 137, 255):
        result = lab.run("exec", "shell", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}")
        assert result.returncode == code
        assert result.stdout == b"out\n"
        assert result.stderr.startswith(b"err\n")
        assert (b"command terminated with exit code" in result.stderr) == (code != 0)
    killed = lab.run("exec", "shell", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137

    data = os.urandom(3_000_000)
    echoed = lab.run("exec", "-i", "shell", "--", "cat", stdin=data)
    assert hashlib.sha256(echoed.stdout).digest() == hashlib.sha256(data).digest()
    large = lab.run("exec", "shell", "--", "sh", "-c", "head -c 30000000 /dev/zero; echo done >&2")
    assert (len(large.stdout), large.stderr) == (30_000_000, b"done\n")
    # A program that reads no input and one that ends while input is coming.
    assert lab.run("exec", "-i", "shell", "--", "true", stdin=data).returncode == 0
    assert lab.run("exec", "-i", "shell", "--", "head", "-c", "5", stdin=b"12345678").stdout == b"12345"

    missing = lab.run("exec", "shell", "--", "nosuchprogram")
    assert missing.returncode != 0
    assert b'exec: "nosuchprogram": executable file not found in $PATH' in missing.stderr
    assert b'pods "nobody" not found' in lab.run("exec", "nobody", "--", "true").stderr
    assert (
        b"container nope is not valid for pod shell"
        in lab.run("exec", "shell", "-c", "nope", "--", "true").stderr
    )


def test_exec_with_spdy_works_as_with_websockets(lab: Space) -> None:
    lab.apply(busybox("shell", "sleep infinity"))
    lab.ready("shell")
    lab.cluster.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] = "false"
    lab.cluster.environment["KUBECTL_PORT_FORWARD_WEBSOCKETS"] = "false"
    try:
        data = os.urandom(2_000_000)
        result = lab.run("exec", "-i", "shell", "--", "sh", "-c", "cat; echo err >&2; exit 6", stdin=data)
        assert (result.returncode, result.stdout == data) == (6, True)
        assert result.stderr.startswith(b"err\n")
        with Terminal(lab, "exec", "-it", "shell", "--", "sh") as terminal:
            terminal.say("tty; exit 4\n")
            terminal.until(r"/dev/pts/\d+")
            assert terminal.wait() == 4
    finally:
        del lab.cluster.environment["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"]
        del lab.cluster.environment["KUBECTL_PORT_FORWARD_WEBSOCKETS"]


def test_a_terminal_is_a_terminal(lab: Space) -> None:
    lab.apply(busybox("shell", "sleep infinity"))
    lab.ready("shell")
    with Terminal(lab, "exec", "-it", "shell", "--", "sh", size=(33, 101)) as terminal:
        terminal.say(
            "tty; stty size; echo TERM=$TERM; test -t 0 && test -t 1 && test -t 2 && echo all three\n"
        )
        terminal.until(r"(\n|# )/dev/pts/\d+\r\n")
        terminal.until(r"33 101\r\n")
        terminal.until(r"TERM=xterm\r\n")
        terminal.until(r"all three\r\n")
        terminal.resize(50, 120)

        def resized() -> bool:
            terminal.say("stty size\n")
            return terminal.until(r"\n(\d+ \d+)\r\n").group(1) == "50 120"

        eventually("the new size", resized)
        # Ctrl-C reaches the program in front, not kubectl.
        terminal.say("sleep 100\n")
        terminal.until(r"sleep 100\r\n")
        eventually("it runs", lambda: "sleep 100" in lab.sh("shell", "ps ax"))
        terminal.say("\x03")
        terminal.until(r"\^C")
        terminal.say("echo still here\n")
        terminal.until(r"still here\r\n")
        terminal.say("exit 7\n")
        assert terminal.wait() == 7
        assert "command terminated with exit code 7" in terminal.text
    # Leaving without a word ends the program.
    with Terminal(lab, "exec", "-it", "shell", "--", "sh", "-c", "echo begun; exec sleep 4321") as terminal:
        terminal.until("begun")
    eventually("the program ended", lambda: "sleep 4321" not in lab.sh("shell", "ps ax"))


def test_attach_joins_the_container(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: session}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, stdin: true, tty: true, command: [sh]}]
---
apiVersion: v1
kind: Pod
metadata: {name: ticker}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, command: [sh, -c, "i=0; while :; do echo tick $((i=i+1)); sleep .1; done"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: busybox, stdin: true, stdinOnce: true, command: [sha256sum]}]
"""
    )
    for name in ("session", "ticker", "once"):
        lab.ready(name)
    with Terminal(lab, "attach", "-it", "session") as terminal:
        terminal.until("press")
        terminal.say("\n")
        terminal.until("# ")
        terminal.say("tty; echo I am $$\n")
        terminal.until(r"/dev/pts/\d+\r\n")
        terminal.until(r"I am 1\r\n")
        terminal.say("exit 3\n")
        assert terminal.wait() == 0
        assert "Session ended, resume using" in terminal.text
    eventually("the shell is back", lambda: lab.container("session")["restartCount"] == 1)
    assert lab.container("session")["lastState"]["terminated"]["exitCode"] == 3
    with background(lab, "attach", "ticker") as watching:
        watching.until("ticks", lambda lines: sum("tick" in line for line in lines) >= 3)
    sent = lab.run("attach", "-i", "once", stdin=b"abc")
    assert sent.returncode == 0, sent
    lab.reaches("once", "Succeeded")
    assert lab.kubectl("logs", "once").split()[0] == hashlib.sha256(b"abc").hexdigest()


@needs_kubectl(24)
def test_logs(lab: Space) -> None:
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: talk, labels: {app: talk}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    command:
    - sh
    - -c
    - >-
      for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; printf 'a\\rb\\n';
      until [ -e /tmp/go ]; do sleep .05; done; echo more; printf unfinished
  - name: other
    image: busybox
    command: [sh, -c, "echo from other; head -c 40000 /dev/zero | tr '\\\\0' x; echo; sleep infinity"]
"""
    )
    lab.ready("talk")
    full = "".join(f"line {i}\n" for i in range(1, 6))
    main = ("logs", "talk", "-c", "main")
    eventually("its lines", lambda: "a\rb" in lab.run(*main).stdout.decode())
    text = lab.run(*main).stdout.decode()
    assert sorted(text.split("\n")) == sorted((full + "wrong\na\rb\n").split("\n"))
    defaulted = lab.run("logs", "talk")
    assert b'Defaulted container "main" out of: main, other' in defaulted.stderr
    assert len(lab.run(*main, "--tail=2").stdout.split(b"\n")) == 3
    assert lab.kubectl(*main, "--tail=0") == ""
    assert lab.kubectl(*main, "--limit-bytes=4") == "line"
    for line in lab.run(*main, "--timestamps", "--tail=3").stdout.decode().strip().split("\n"):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", line)
    assert lab.kubectl("logs", "talk", "-c", "other").endswith("from other\n" + "x" * 40000 + "\n")
    both = lab.kubectl("logs", "talk", "--all-containers", "--prefix")
    assert "[pod/talk/main] line 1\n" in both
    assert "[pod/talk/other] from other\n" in both
    assert "line 5" in lab.kubectl("logs", "-l", "app=talk", "-c", "main", "--tail=-1")
    assert lab.kubectl(*main, "--since=1h").startswith("line 1\n")
    assert lab.kubectl(*main, "--since-time=2099-01-01T00:00:00Z") == ""
    refused = lab.kubectl(*main, "--previous", check=False)
    assert 'previous terminated container "main" in pod "talk" not found' in refused
    assert "container nope is not valid for pod talk" in lab.kubectl(
        "logs", "talk", "-c", "nope", check=False
    )
    with background(lab, *main, "-f", "--tail=1") as following:
        following.until("the last line", lambda lines: lines)
        lab.sh("talk", "touch /tmp/go", "-c", "main")
        following.until("the new line", lambda lines: "more" in lines)
        assert following.wait() == 0
        assert following.lines[-1] == "unfinished"
    assert lab.kubectl(*main).endswith("more\nunfinished")


def test_cp_both_ways(lab: Space, tmp_path: Path) -> None:
    lab.apply(busybox("box", "sleep infinity"))
    lab.ready("box")
    data = os.urandom(1_500_000)
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "data").write_bytes(data)
    (tree / "note").write_text("hello\n")
    lab.kubectl("cp", str(tree), "box:/tmp/tree")
    assert lab.sh("box", "find /tmp/tree -type f | sort; cat /tmp/tree/note").split() == [
        "/tmp/tree/deep/data", "/tmp/tree/note", "hello",
    ]  # fmt: skip
    assert lab.sh("box", "sha256sum /tmp/tree/deep/data").split()[0] == hashlib.sha256(data).hexdigest()
    lab.kubectl("cp", "box:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "data").read_bytes() == data
    lab.kubectl("cp", "box:/tmp/tree/note", str(tmp_path / "note"), "-c", "main")
    assert (tmp_path / "note").read_text() == "hello\n"


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_port_forward(lab: Space, websockets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lab.cluster.environment, "KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
    lab.apply(
        busybox(
            "web",
            "head -c 5000000 /dev/zero > /tmp/big; echo page > /tmp/index.html\n"
            "busybox httpd -f -p 127.0.0.1:8080 -h /tmp",
        )
    )
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    lab.ready("web")
    with background(lab, "port-forward", "pod/web", ":8080", ":9999") as forwarding:
        forwarding.until("two ports", lambda lines: len(_local_ports(lines)) == 2)
        served, dead = _local_ports(forwarding.lines)
        for _ in range(3):
            assert _fetch(served, "/index.html") == b"page\n"
        assert len(_fetch(served, "/big")) == 5_000_000
        # Nobody listens there, and the reason is said.
        with socket.create_connection(("127.0.0.1", dead), 5) as refused:
            assert refused.recv(10) == b""
        forwarding.until(
            "the reason", lambda lines: any("9999" in line and "refused" in line for line in lines)
        )
    with background(lab, "port-forward", "service/web", ":80") as forwarding:
        forwarding.until("the port", lambda lines: _local_ports(lines))
        assert any("-> 8080" in line for line in forwarding.lines)
        assert _fetch(_local_ports(forwarding.lines)[0], "/index.html") == b"page\n"
    unknown = lab.kubectl("port-forward", "service/web", ":9999", check=False)
    assert "error: Service web does not have a service port 9999" in unknown


def _local_ports(lines: list[str]) -> list[int]:
    """The ports kubectl says it listens on."""
    return [int(found[1]) for line in lines if (found := re.search(r"from 127\.0\.0\.1:(\d+)", line))]


def _fetch(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        received = bytearray()
        while data := connection.recv(65536):
            received += data
    return bytes(received).split(b"\r\n\r\n", 1)[1]
