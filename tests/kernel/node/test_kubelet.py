"""The kubelet server through the real API server and the real kubectl: logs, exec, attach, cp, port-forward."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.node.agent_node import NODE_ADDRESS, Node, is_ready, node, pod

from netkit.kernel import netns

pytestmark = [pytest.mark.root, pytest.mark.kubectl]

KUBECTL = "/usr/lib/google-cloud-sdk/bin/kubectl.{}"
SHELL = {"image": "busybox", "command": ["sh", "-c", "echo begun; echo oops >&2; exec sleep 1000"]}


class Kubectl:
    def __init__(self, machine: Node, directory: Path) -> None:
        self.machine = machine
        served = machine.served
        self._flags = [
            f"--server={served.url}", f"--certificate-authority={served.authority.certificate_path}",
            f"--client-certificate={served.admin.cert}", f"--client-key={served.admin.key}",
            f"--cache-dir={directory}/cache",
        ]  # fmt: skip

    async def start(
        self, *words: str, version: str = "1.32", env: dict[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            KUBECTL.format(version), *self._flags, *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "KUBECONFIG": "/dev/null", **(env or {})},
        )  # fmt: skip

    async def __call__(
        self, *words: str, stdin: bytes = b"", version: str = "1.32", env: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        process = await self.start(*words, version=version, env=env)
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    if not os.path.exists(KUBECTL.format("1.32")):
        pytest.skip("kubectl 1.32 is not installed")
    async with node(tmp_path) as machine:
        await machine.create(pod("box", SHELL, terminationGracePeriodSeconds=1))
        await machine.until("box", is_ready)
        yield Kubectl(machine, tmp_path)


SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
TRANSPORTS = pytest.mark.parametrize(
    ("version", "env"), [("1.32", {}), ("1.32", SPDY), ("1.27", {})], ids=["websocket", "spdy", "spdy-1.27"]
)


@TRANSPORTS
async def test_exec_output_input_and_exit_code(kubectl: Kubectl, version: str, env: dict[str, str]) -> None:
    script = "hostname; cat; echo bad >&2; exit 7"
    code, out, err = await kubectl(
        "exec", "-i", "box", "--", "sh", "-c", script, stdin=b"typed\n", version=version, env=env
    )
    assert (code, out) == (7, "box\ntyped\n")
    assert err.startswith("bad\n")
    assert "command terminated with exit code 7" in err


@TRANSPORTS
async def test_exec_of_a_missing_program(kubectl: Kubectl, version: str, env: dict[str, str]) -> None:
    code, _, err = await kubectl("exec", "box", "--", "no-such-thing", version=version, env=env)
    assert code == 1
    assert 'exec: "no-such-thing": executable file not found in $PATH' in err


@TRANSPORTS
async def test_much_output(kubectl: Kubectl, version: str, env: dict[str, str]) -> None:
    code, out, _ = await kubectl("exec", "box", "--", "seq", "1", "300000", version=version, env=env)
    assert code == 0
    assert out.splitlines()[-1] == "300000"
    assert len(out.splitlines()) == 300000


async def test_terminal(kubectl: Kubectl) -> None:
    # Without a terminal of its own kubectl warns and goes on; the far side gets one all the same.
    machine = kubectl.machine
    found = await machine.get("box")
    assert found is not None
    url = machine.served.url.replace("https", "wss") + "/api/v1/namespaces/default/pods/box/exec"
    query = "?command=sh&stdin=true&stdout=true&tty=true"
    async with machine.served.session.ws_connect(url + query, protocols=("v5.channel.k8s.io",)) as socket:
        await socket.send_bytes(b'\x04{"Width":101,"Height":33}\n')
        await socket.send_bytes(b"\x00stty size; tty >/dev/null; exit 3\n")
        output, status = b"", b""
        async with asyncio.timeout(60):
            async for message in socket:
                if message.data[0] == 1:
                    output += message.data[1:]
                elif message.data[0] == 3:
                    status = message.data[1:]
    assert b"33 101\r\n" in output
    assert b'"ExitCode", "message": "3"' in status


async def test_exec_into_a_builtin_container(kubectl: Kubectl) -> None:
    await kubectl.machine.create(pod("web", {"image": "nginx"}))
    await kubectl.machine.until("web", is_ready)
    code, out, _ = await kubectl(
        "exec", "web", "--", "sh", "-c", "hostname; curl -s localhost | grep -c Welcome"
    )
    assert (code, out) == (0, "web\n2\n")
    code, _, err = await kubectl("exec", "web", "-c", "other", "--", "true")
    assert "container other is not valid for pod web" in err


async def test_copy_there_and_back(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    code, _, err = await kubectl("cp", str(tmp_path / "file"), "box:/tmp/copied")
    assert code == 0, err
    code, _, err = await kubectl("cp", "box:/tmp/copied", str(tmp_path / "back"))
    assert code == 0, err
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()


async def test_logs(kubectl: Kubectl) -> None:
    code, out, _ = await kubectl("logs", "box")
    assert (code, sorted(out.splitlines())) == (0, ["begun", "oops"])
    _, out, _ = await kubectl("logs", "box", "--tail=1")
    assert len(out.splitlines()) == 1
    _, out, _ = await kubectl("logs", "box", "--timestamps")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (begun|oops)\n", out)
    _, out, _ = await kubectl("logs", "box", "--limit-bytes=3")
    assert len(out) == 3
    code, _, err = await kubectl("logs", "box", "--previous")
    assert code == 1
    assert 'previous terminated container "app" in pod "box" not found' in err
    await kubectl.machine.create(pod("strange", {"image": "no/such:1"}))
    await kubectl.machine.until("strange", lambda p: p["status"].get("containerStatuses"))
    code, _, err = await kubectl("logs", "strange")
    assert 'container "app" in pod "strange" is waiting to start: ' in err


async def test_logs_follow_until_the_end_and_of_the_previous_one(kubectl: Kubectl) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 1"
    await kubectl.machine.create(pod("talk", {"image": "busybox", "command": ["sh", "-c", script]}))
    await kubectl.machine.until("talk", lambda p: p["status"].get("phase") == "Running")
    code, out, _ = await kubectl("logs", "-f", "talk")
    assert (code, out) == (0, "line 1\nline 2\nline 3\n")
    await kubectl.machine.until("talk", lambda p: p["status"]["containerStatuses"][0]["restartCount"] >= 1)
    code, out, _ = await kubectl("logs", "-p", "talk")
    assert (code, out) == (0, "line 1\nline 2\nline 3\n")


async def test_attach(kubectl: Kubectl) -> None:
    command = ["sh", "-c", "while read x; do echo got $x; done"]
    await kubectl.machine.create(
        pod("reader", {"image": "busybox", "command": command, "stdin": True, "stdinOnce": True},
            restartPolicy="Never")
    )  # fmt: skip
    await kubectl.machine.until("reader", is_ready)
    code, out, err = await kubectl("attach", "-i", "reader", stdin=b"one\ntwo\n")
    assert (code, out) == (0, "got one\ngot two\n"), err
    await kubectl.machine.until("reader", lambda p: p["status"]["phase"] == "Succeeded")


@TRANSPORTS
async def test_port_forward(kubectl: Kubectl, version: str, env: dict[str, str]) -> None:
    await kubectl.machine.create(pod("web", {"image": "nginx"}))
    await kubectl.machine.until("web", is_ready)
    process = await kubectl.start("port-forward", "pod/web", ":80", version=version, env=env)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            line = (await process.stdout.readline()).decode()
        match = re.search(r"127\.0\.0\.1:(\d+) -> 80", line)
        assert match, line
        async with aiohttp.ClientSession() as session:

            async def get() -> str:
                async with session.get(f"http://127.0.0.1:{match[1]}/") as answer:
                    return await answer.text()

            answers = await asyncio.gather(*(get() for _ in range(10)))
        assert all("Welcome to nginx!" in answer for answer in answers)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def test_port_forward_on_channels(kubectl: Kubectl) -> None:
    machine = kubectl.machine
    await machine.create(pod("web", {"image": "nginx"}))
    await machine.until("web", is_ready)
    url = (
        machine.served.url.replace("https", "wss")
        + "/api/v1/namespaces/default/pods/web/portforward?ports=80"
    )
    async with machine.served.session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
        assert (await socket.receive_bytes()) == b"\x00\x50\x00"
        assert (await socket.receive_bytes()) == b"\x01\x50\x00"
        await socket.send_bytes(b"\x00GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = await socket.receive_bytes()
    assert data.startswith(b"\x00HTTP/1.1 200 OK")


async def test_only_the_api_servers_certificate_gets_in(kubectl: Kubectl) -> None:
    machine = kubectl.machine
    authority = machine.served.authority
    stranger = authority.ensure("stranger", "somebody", ["nobody"])
    context = ssl.create_default_context(cafile=authority.certificate_path)

    async def get(tls: ssl.SSLContext) -> int:
        def make(address: tuple[int, int, int, str, object]) -> object:
            return netns.socket_in(machine.namespace, *address[:3])

        connector = aiohttp.TCPConnector(ssl=tls, socket_factory=make)
        url = f"https://{NODE_ADDRESS}:10250/healthz"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
            return answer.status

    with pytest.raises(aiohttp.ClientError):
        await get(context)
    context.load_cert_chain(stranger.cert, stranger.key)
    assert await get(context) == 403
    assert await get(machine.served.client_tls()) == 200
