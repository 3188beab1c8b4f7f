"""Kernel tests in a machine of their own: network and mount namespaces that nothing else uses, and a leak check.

`own_host` runs a test in a child process whose HOST is a fresh network namespace with its own /run. So tests that run
side by side cannot disturb each other or the machine, and "the host is as it was before" can be compared exactly.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import os
import shutil
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from support.host import HostNetwork, host_network

from netkit.fabric.build import Fabric
from netkit.fabric.spec import (
    FabricSpec,
    InterfaceSpec,
    MachineSpec,
    RouteSpec,
    SegmentSpec,
    host_link_name,
)
from netkit.kernel import netns, process, syscalls
from netkit.kernel.netns import Namespace

requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")
_DEADLINE = 300.0


def own_host(test: Callable[..., Any]) -> Any:
    """Decorator: run the test (also an async one) isolated, with a leak check at its end."""

    @functools.wraps(test)
    def isolated(*args: Any, **kwargs: Any) -> None:
        def body() -> None:
            if inspect.iscoroutinefunction(test):
                asyncio.run(asyncio.wait_for(test(*args, **kwargs), _DEADLINE))
            else:
                test(*args, **kwargs)

        _in_child(body)

    return requires_root(pytest.mark.root(isolated))


def _in_child(body: Callable[[], None]) -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        text = ""
        try:
            _isolate()
            with leak_check():
                body()
        except BaseException:
            text = traceback.format_exc()
            raise
        finally:
            os.write(write_end, text.encode()[-60_000:])
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        text = stream.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if text or status:
        pytest.fail(text or f"the test's process ended with {status}", pytrace=False)


def _isolate() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    if os.path.isdir("/run/netns"):
        # Names of others, which would come and go here as they come and go there.
        process.run(["umount", "--lazy", "/run/netns"])
    syscalls.mount("tmpfs", "/run", "tmpfs")
    # mount(8) and iptables would make these
    os.mkdir("/run/mount")
    Path("/run/xtables.lock").touch()
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    netns.make_current_host()
    process.run(["ip", "link", "set", "lo", "up"], check=True)


@contextmanager
def leak_check() -> Iterator[None]:
    """Everything a user could notice is the same afterwards: host network, namespaces, mounts, processes, files."""
    before, mounts, files = host_network(), _mounts(), sorted(os.listdir("/run"))
    yield
    assert wait_for(lambda: host_network().links == before.links), "a link is left"
    _same(before, host_network())
    left = sorted(os.listdir("/run"))
    assert left == files, f"/run was {files} and is {left}"
    assert _mounts() == mounts, sorted(set(_mounts()) ^ set(mounts))
    assert _children() == [], "processes are left"


def _same(before: HostNetwork, after: HostNetwork) -> None:
    for field in ("links", "addresses", "routes", "rules", "neighbours", "filters", "sysctls"):
        assert getattr(after, field) == getattr(before, field), f"the host's {field} changed"


def _mounts() -> list[str]:
    return [line.split(maxsplit=4)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _children() -> list[int]:
    """Living children of this process (it is the reaper of its descendants)."""
    found = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return [int(p) for p in Path("/proc/thread-self/children").read_text().split()] or [-1]


def wait_for(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Poll until `condition` gives something true, which is returned; its last value after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return value


async def eventually(condition: Callable[[], Any], timeout: float = 60.0) -> Any:
    """`wait_for` in a running loop; fails when it does not come true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.005)
    return value


def spec_of(
    *machines: str, cluster: str = "kt", segment: str = "172.18.0.0/16", mtu: int = 1500
) -> FabricSpec:
    """A fabric whose machines get .2, .3, ... and the host .1."""
    network = IPv4Network(segment)

    def address(number: int) -> IPv4Interface:
        return IPv4Interface((int(network.network_address) + number, network.prefixlen))

    gateway = RouteSpec(IPv4Network("0.0.0.0/0"), address(1).ip)
    return FabricSpec(
        cluster=cluster,
        segments=(SegmentSpec("lan", network, mtu),),
        machines=tuple(
            MachineSpec(name, (InterfaceSpec("lan", address(i + 2)),), (gateway,))
            for i, name in enumerate(machines)
        ),
        host=InterfaceSpec("lan", address(1)),
        host_link=host_link_name(cluster),
    )


def machine_ns(fabric: Fabric, name: str) -> Namespace:
    return fabric.machines[name].ns


def ping(ns: Namespace, target: str, *, size: int = 56, patience: float = 2) -> bool:
    """Whether the target answers in `patience` s; DF is set, `size` is the payload (28 bytes less than the packet)."""
    argv = ["ping", "-n", "-q", "-c", "1", "-W", f"{patience:g}", "-M", "do", "-s", str(size), target]
    return process.run(argv, ns=ns).returncode == 0


def source_seen(client: Namespace, server: Namespace, target: str, port: int = 8080, payload: int = 1) -> str:
    """Connect by TCP from `client` to `target`, where `server` listens; the address the server sees.

    `payload` bytes go there and are counted. Raises TimeoutError or OSError when there is no connection.
    """
    with (
        netns.socket_in(server, socket.AF_INET, socket.SOCK_STREAM) as listener,
        netns.socket_in(client, socket.AF_INET, socket.SOCK_STREAM) as caller,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _bind(listener, port)
        listener.listen()
        listener.settimeout(3)
        caller.settimeout(3)
        caller.connect((target, port))
        served, (source, _) = listener.accept()
        with served:
            served.settimeout(3)
            sending = threading.Thread(target=caller.sendall, args=(b"x" * payload,))
            sending.start()
            received = 0
            while received < payload:
                received += len(served.recv(65536))
            sending.join()
        return str(source)


def _bind(listener: socket.socket, port: int) -> None:
    """A child that another thread forks holds an earlier listener until it becomes its program."""
    deadline = time.monotonic() + 3
    while True:
        try:
            listener.bind(("0.0.0.0", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def has(*programs: str) -> bool:
    return all(shutil.which(program) for program in programs)
