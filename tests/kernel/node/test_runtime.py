"""The runtime process against the real kernel: process containers, builtin servers, exec, its own death."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.node.runtime_process import (
    RuntimeProcess,
    config,
    log_text,
    pod_network,
    runtime_process,
    shell,
    until,
)

from netkit.kernel import netns
from netkit.node.runtime.client import RuntimeClient, RuntimeRefused, exit_code_of
from netkit.node.runtime.frames import Channel
from netkit.node.runtime.spec import (
    BindMount,
    BuiltinConfig,
    ContainerConfig,
    ExecRequest,
    ListenPort,
    Phase,
    Processes,
    SecurityConfig,
)

pytestmark = pytest.mark.root


@pytest.fixture
def network(tmp_path: Path) -> Iterator[str]:
    with pod_network(tmp_path) as name:
        yield name


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[RuntimeProcess]:
    async with runtime_process(tmp_path) as process:
        yield process


async def http(network: str, port: int, path: str = "/", headers: str = "") -> str:
    """One GET inside the namespace; the whole answer."""
    with netns.open_namespace(network) as namespace:
        sock = netns.socket_in(namespace, 2, 1)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n".encode())
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def exec_all(
    client: RuntimeClient, container: str, *argv: str, stdin: bytes | None = None, tty: bool = False
) -> tuple[int, bytes, bytes]:
    """Run a program to its end: (exit code, stdout, stderr)."""
    request = ExecRequest(container=container, argv=argv, stdin=stdin is not None, tty=tty)
    stream = await client.stream(request)
    out = {Channel.STDOUT: b"", Channel.STDERR: b""}
    code = -1
    if stdin is not None:
        await stream.write(stdin)
        await stream.end_of_input()
    while frames := await stream.read():
        for channel, payload in frames:
            if channel is Channel.EXIT:
                code = exit_code_of(payload)
            else:
                out[channel] += payload
    await stream.close()
    return code, out[Channel.STDOUT], out[Channel.STDERR]


async def test_process_sees_only_its_own_world(runtime: RuntimeProcess, network: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n10.0.0.9 web\n")
    script = (
        "hostname; cat /etc/hosts; echo $$; ls /proc | grep -c '^[0-9]'; pwd; echo $GREETING; "
        "id -u; touch /mark"
    )
    container = config(
        network,
        tmp_path,
        argv=shell(script),
        workdir="/var",
        env={"PATH": os.environ["PATH"], "GREETING": "hello"},
        binds=(BindMount(str(tmp_path / "hosts"), "/etc/hosts"),),
    )
    await runtime.client.start(container)
    state = await runtime.exit_of(container.id)
    assert (state.exit_code, state.reason) == (0, "Completed")
    lines = log_text(container).splitlines()
    assert lines[0:4] == ["web", "127.0.0.1 localhost", "10.0.0.9 web", "1"]
    assert int(lines[4]) <= 4
    assert lines[5:] == ["/var", "hello", "0"]
    assert not os.path.exists("/mark")


async def test_pod_network_is_the_process_network(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=shell("readlink /proc/self/ns/net; ls /sys/class/net"))
    await runtime.client.start(container)
    await runtime.exit_of(container.id)
    with netns.open_namespace(network) as namespace:
        assert log_text(container) == f"net:[{namespace.inode}]\nlo\n"


async def test_default_capabilities_lack_net_admin(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    argv = shell(
        "ip link set lo down || echo refused; grep NoNewPrivs /proc/self/status >/dev/null && echo ok"
    )
    plain = config(
        network, tmp_path, argv=argv, security=SecurityConfig(capabilities=("NET_RAW", "NET_BIND_SERVICE"))
    )
    await runtime.client.start(plain)
    await runtime.exit_of(plain.id)
    assert "refused" in log_text(plain)
    admin = config(network, tmp_path, argv=argv, security=SecurityConfig(capabilities=("NET_ADMIN",)))
    await runtime.client.start(admin)
    await runtime.exit_of(admin.id)
    assert "refused" not in log_text(admin)


async def test_exit_code_and_stderr_reach_state_and_log(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=shell("echo oops >&2; printf partial; exit 7"))
    await runtime.client.start(container)
    state = await runtime.exit_of(container.id)
    assert (state.exit_code, state.reason, state.phase) == (7, "Error", Phase.EXITED)
    text = Path(container.log_path).read_text()
    assert " stderr F oops\n" in text
    assert " stdout P partial\n" in text


async def test_missing_program_is_refused_in_runtime_words(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=("no-such-program",))
    with pytest.raises(
        RuntimeRefused, match=r'exec: "no-such-program": executable file not found in \$PATH'
    ) as got:
        await runtime.client.start(container)
    assert got.value.missing
    assert await runtime.client.states() == []


async def test_stop_escalates_to_kill_after_the_grace_period(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    polite = config(network, tmp_path, argv=shell("trap 'exit 3' TERM; while :; do sleep 0.05; done"))
    stubborn = config(network, tmp_path, argv=("tail", "-f", "/dev/null"))
    for container in (polite, stubborn):
        await runtime.client.start(container)
    await runtime.client.stop(polite.id, 20)
    assert (await runtime.exit_of(polite.id)).exit_code == 3
    await runtime.client.stop(stubborn.id, 0.2)
    assert (await runtime.exit_of(stubborn.id)).exit_code == 137


async def test_exec_joins_the_container_and_returns_its_code(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=shell("echo here >/tmp/file; exec tail -f /dev/null"))
    await runtime.client.start(container)
    code, out, err = await exec_all(
        runtime.client,
        container.id,
        *shell("cat /tmp/file; cat; echo bad >&2; hostname; exit 9"),
        stdin=b"typed\n",
    )
    assert (code, out, err) == (9, b"here\ntyped\nweb\n", b"bad\n")


async def test_exec_passes_much_data_both_ways(runtime: RuntimeProcess, network: str, tmp_path: Path) -> None:
    container = config(network, tmp_path, argv=("tail", "-f", "/dev/null"))
    await runtime.client.start(container)
    data = os.urandom(1 << 20)
    stream = await runtime.client.stream(ExecRequest(container=container.id, argv=("cat",), stdin=True))

    async def send() -> None:
        for at in range(0, len(data), 50_000):
            await stream.write(data[at : at + 50_000])
        await stream.end_of_input()

    sender = asyncio.create_task(send())
    got = bytearray()
    while frames := await stream.read():
        for channel, payload in frames:
            if channel is Channel.STDOUT:
                got += payload
    await sender
    await stream.close()
    assert bytes(got) == data


async def test_exec_with_terminal_has_a_size_and_one_stream(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=("tail", "-f", "/dev/null"))
    await runtime.client.start(container)
    stream = await runtime.client.stream(
        ExecRequest(
            container=container.id, argv=shell("read x; stty size; echo $TERM >&2"), stdin=True, tty=True
        )
    )
    await stream.resize(101, 33)
    await stream.write(b"go\n")
    out, code = b"", -1
    while frames := await stream.read():
        for channel, payload in frames:
            if channel is Channel.STDOUT:
                out += payload
            elif channel is Channel.EXIT:
                code = exit_code_of(payload)
    await stream.close()
    assert code == 0
    assert b"33 101\r\nxterm\r\n" in out


async def test_exec_of_missing_program_and_in_ended_container(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=shell("sleep 60"))
    await runtime.client.start(container)
    with pytest.raises(RuntimeRefused, match="executable file not found"):
        await runtime.client.stream(ExecRequest(container=container.id, argv=("nothing-such",)))
    await runtime.client.stop(container.id, 0)
    await runtime.exit_of(container.id)
    with pytest.raises(RuntimeRefused, match="is not running"):
        await runtime.client.stream(ExecRequest(container=container.id, argv=("true",)))
    with pytest.raises(RuntimeRefused, match="not found"):
        await runtime.client.stream(ExecRequest(container="nobody", argv=("true",)))


async def test_run_program_gathers_and_times_out(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(network, tmp_path, argv=("tail", "-f", "/dev/null"))
    await runtime.client.start(container)
    result = await runtime.client.run_program(container.id, ["sh", "-c", "echo fine; exit 4"], 10)
    assert (result.exit_code, result.output, result.timed_out) == (4, b"fine\n", False)
    late = await runtime.client.run_program(container.id, ["sleep", "60"], 0.1)
    assert late.timed_out


async def test_stdin_and_attach_of_an_interactive_container(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = config(
        network, tmp_path, argv=shell("while read x; do echo got $x; done"), stdin=True, stdin_once=True
    )
    await runtime.client.start(container)
    stream = await runtime.client.stream(ExecRequest(container=container.id, attach=True, stdin=True))
    await stream.write(b"one\n")
    assert (await stream.read())[0] == (Channel.STDOUT, b"got one\n")
    await stream.end_of_input()
    frames = await stream.read()
    assert frames[-1][0] is Channel.EXIT
    await stream.close()
    assert (await runtime.exit_of(container.id)).exit_code == 0


def builtin(
    network: str, directory: Path, behaviour: str, *ports: ListenPort, **more: object
) -> ContainerConfig:
    return config(
        network,
        directory,
        builtin=BuiltinConfig(behaviour, ports or (ListenPort(80),)),
        node_name="node-1",
        **more,
    )


async def test_builtin_server_answers_in_the_pod_and_logs(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = builtin(network, tmp_path, "hostname")
    state = await runtime.client.start(container)
    assert state.phase is Phase.RUNNING
    answer = await http(network, 80)
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\nweb\n")
    await until(lambda: '"GET / HTTP/1.1" 200' in log_text(container), "access log line")
    await runtime.client.stop(container.id, 5)
    assert (await runtime.exit_of(container.id)).exit_code == 0
    with pytest.raises(ConnectionRefusedError):
        await http(network, 80)


async def test_udp_port_echoes(runtime: RuntimeProcess, network: str, tmp_path: Path) -> None:
    await runtime.client.start(builtin(network, tmp_path, "echo", ListenPort(5353, "UDP")))
    with netns.open_namespace(network) as namespace:
        sock = netns.socket_in(namespace, 2, 2)
    with sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", 5353))
        await loop.sock_sendall(sock, b"ping")
        async with asyncio.timeout(60):
            assert await loop.sock_recv(sock, 100) == b"ping"


async def test_second_server_on_a_port_ends_like_a_program(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    await runtime.client.start(builtin(network, tmp_path, "nginx"))
    second = builtin(network, tmp_path, "nginx")
    await runtime.client.start(second)
    state = await runtime.exit_of(second.id)
    assert state.exit_code == 1
    assert "bind() to 0.0.0.0:80 failed (98: Address already in use)" in log_text(second)


async def test_exec_in_builtin_has_hostname_and_keeps_its_files(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    container = builtin(network, tmp_path, "nginx")
    await runtime.client.start(container)
    root = "/usr/share/nginx/html"
    script = f"hostname; mkdir -p {root}; echo changed > {root}/index.html"
    code, out, _ = await exec_all(runtime.client, container.id, *shell(script))
    assert (code, out) == (0, b"web\n")
    code, out, _ = await exec_all(runtime.client, container.id, "cat", f"{root}/index.html")
    assert out == b"changed\n"
    assert (await http(network, 80)).endswith("\r\n\r\nchanged\n")


async def test_mounted_document_root_is_served(runtime: RuntimeProcess, network: str, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "index.html").write_text("<p>mounted</p>\n")
    container = builtin(
        network, tmp_path, "nginx", binds=(BindMount(str(tmp_path / "web"), "/usr/share/nginx/html"),)
    )
    await runtime.client.start(container)
    assert (await http(network, 80)).endswith("<p>mounted</p>\n")
    assert (await http(network, 80, "/../../etc/passwd")).startswith("HTTP/1.1 404")


async def test_containers_survive_the_client_and_not_the_runtime(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    process = config(network, tmp_path, argv=("tail", "-f", "/dev/null"), annotations={"note": "x"})
    state = await runtime.client.start(process)
    second = RuntimeClient(runtime.socket)
    task = asyncio.create_task(second.run())
    async with asyncio.timeout(60):
        await second.connected()
    (found,) = await second.states()
    assert (found.config.id, found.pid, dict(found.config.annotations)) == (
        process.id,
        state.pid,
        {"note": "x"},
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    runtime.kill()
    async with asyncio.timeout(60):
        await runtime.client.disconnected()
    await until(lambda: not os.path.exists(f"/proc/{state.pid}"), "container dies with the runtime")
    runtime.launch()
    async with asyncio.timeout(60):
        await runtime.client.connected()
    assert await runtime.client.states() == []


async def test_nothing_is_mounted_on_the_machine(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    before = Path("/proc/self/mounts").read_text()
    container = config(network, tmp_path, argv=("tail", "-f", "/dev/null"))
    await runtime.client.start(container)
    assert Path("/proc/self/mounts").read_text() == before


async def test_root_directory_image_is_all_that_is_seen(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    for folder in ("bin", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "etc" / "marker").write_text("image\n")
    shutil.copy("/usr/bin/busybox", root / "bin" / "busybox")
    listed = await asyncio.create_subprocess_exec("ldd", "/usr/bin/busybox", stdout=-1, stderr=-1)
    libraries = re.findall(r"(/\S+)", (await listed.communicate())[0].decode())
    for library in libraries:
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    script = "busybox cat /etc/marker; echo x > /etc/marker; busybox ls / | busybox grep -c srv; echo $0; pwd"
    container = config(
        network, tmp_path, argv=("busybox", "sh", "-c", script, "me"), root=str(root), workdir="/work", env={}
    )
    await runtime.client.start(container)
    assert (await runtime.exit_of(container.id)).exit_code == 0
    assert log_text(container) == "image\n0\nme\n/work\n"
    assert (root / "etc" / "marker").read_text() == "image\n"


async def test_containers_of_a_pod_share_a_pid_namespace(
    runtime: RuntimeProcess, network: str, tmp_path: Path
) -> None:
    script = "sleep 71717 & sleep 71718"
    first = config(network, tmp_path, argv=shell(script), processes=Processes.POD)
    second = config(network, tmp_path, argv=("sleep", "71719"), processes=Processes.POD)
    for each in (first, second):
        await runtime.client.start(each)
    seen = (await runtime.client.run_program(second.id, ["ps", "ax"], 5)).output.decode()
    assert all(f"sleep 7171{number}" in seen for number in (7, 8, 9))
    joined = config(
        network, tmp_path, argv=("sleep", "71720"), processes=Processes.CONTAINER, neighbour=second.id
    )
    await runtime.client.start(joined)
    seen = (await runtime.client.run_program(joined.id, ["ps", "ax"], 5)).output.decode()
    assert "sleep 71718" in seen
    # What the first has started ends with it, what others have does not.
    await runtime.client.stop(first.id, 0)
    await runtime.exit_of(first.id)
    seen = (await runtime.client.run_program(second.id, ["ps", "ax"], 5)).output.decode()
    assert "sleep 71717" not in seen
    assert "sleep 71719" in seen
    gone = config(network, tmp_path, argv=("true",), processes=Processes.CONTAINER, neighbour=first.id)
    with pytest.raises(RuntimeRefused, match="is not running"):
        await runtime.client.start(gone)


async def test_usage(runtime: RuntimeProcess, network: str, tmp_path: Path) -> None:
    busy = config(network, tmp_path, argv=shell("while :; do :; done"))
    served = config(network, tmp_path, builtin=BuiltinConfig("hostname", (ListenPort(80),)))
    for each in (busy, served):
        await runtime.client.start(each)
    first = {each.id: each for each in (await runtime.client.usage()).containers}
    for _ in range(20):
        await http(network, 80)
    await runtime.client.run_program(
        busy.id, ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], 20
    )
    second = {each.id: each for each in (await runtime.client.usage()).containers}
    assert second[busy.id].cpu_nanos > first[busy.id].cpu_nanos
    assert second[busy.id].memory > 100_000
    assert second[busy.id].processes == 1
    assert second[served.id].cpu_nanos > first[served.id].cpu_nanos
    await runtime.client.stop(busy.id, 0)
    await runtime.exit_of(busy.id)
    assert [each.id for each in (await runtime.client.usage()).containers] == [served.id]
