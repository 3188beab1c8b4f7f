from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from support.kernel import own_host, wait_for

from netkit.kernel import netns, netns_directory, process, rtnl, sysctl
from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all
from netkit.kernel.netns import HOST
from netkit.kernel.rtnl import Rtnl
from netkit.kernel.teardown import teardown


@own_host
def test_ip_netns_lists_and_enters_what_we_made(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    with netns.create("kt.one", ledger) as ns, Rtnl(ns) as links:
        links.apply(rtnl.bridge("br7"))
        listed = process.run(["ip", "netns", "list"], check=True).stdout.decode().split()
        assert "kt.one" in listed
        assert b"br7" in process.run(["ip", "netns", "exec", "kt.one", "ip", "link"], check=True).stdout
    teardown(tmp_path / "l")
    assert not os.path.exists("/run/netns")


@own_host
def test_names_of_others_survive_our_teardown(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    netns.create("kt.one", ledger).close()
    process.run(["ip", "netns", "add", "theirs"], check=True)
    teardown(tmp_path / "l")
    assert netns.names() == ["theirs"]
    process.run(["ip", "netns", "exec", "theirs", "true"], check=True)
    process.run(["ip", "netns", "del", "theirs"], check=True)
    netns_directory.restore()


@own_host
def test_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    process.run(["ip", "netns", "add", "first"], check=True)
    process.run(["ip", "netns", "del", "first"], check=True)
    netns.create("kt.one", Ledger(tmp_path / "l", "me")).close()
    teardown(tmp_path / "l")
    assert process.run(["mountpoint", "-q", "/run/netns"]).returncode == 0
    process.run(["umount", "/run/netns"], check=True)
    os.rmdir("/run/netns")


@own_host
def test_two_clusters_share_the_directory_and_the_last_puts_it_back(tmp_path: Path) -> None:
    netns.create("ka.one", Ledger(tmp_path / "a", "me")).close()
    netns.create("kb.one", Ledger(tmp_path / "b", "me")).close()
    process.run([
        *["python3", "-c"], "import sys; sys.exit(0)",
    ], check=True)  # fmt: skip
    teardown(tmp_path / "a")
    assert netns.exists("kb.one")
    assert process.run(["mountpoint", "-q", "/run/netns"]).returncode == 0
    netns_directory._ensured.clear()
    netns.create("kb.two", Ledger(tmp_path / "b", "other")).close()
    teardown(tmp_path / "b")
    assert not os.path.exists("/run/netns")


@own_host
def test_a_taken_name_is_refused_and_not_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    process.run(["ip", "netns", "add", "kt.one"], check=True)
    with pytest.raises(KernelError) as caught:
        netns.create("kt.one", ledger)
    assert caught.value.is_exists
    teardown(tmp_path / "l")
    assert netns.names() == ["kt.one"]
    process.run(["ip", "netns", "del", "kt.one"], check=True)
    process.run(["umount", "/run/netns"], check=True)
    os.rmdir("/run/netns")


@own_host
def test_a_half_made_name_is_made_anew(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", "me") as ledger:
        netns.create("kt.zero", ledger).close()
        ledger.intend(Entry(EntryKind.NAMESPACE, "kt.one"))
        Path("/run/netns/kt.one").touch()
        assert not netns.exists("kt.one")
        with pytest.raises(KernelError, match="no namespace behind it"):
            netns.open_namespace("kt.one")
        netns.create("kt.one", ledger).close()
        assert netns.exists("kt.one")
    teardown(tmp_path / "l")


@own_host
def test_sockets_and_nested_entering(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    with netns.create("kt.a", ledger) as a, netns.create("kt.b", ledger) as b:

        def here() -> int:
            return os.stat("/proc/thread-self/ns/net").st_ino

        home = here()
        with netns.entered(a):
            assert here() == a.inode
            with netns.entered(b):
                assert here() == b.inode
            assert here() == a.inode
            # A thread starts where its creator is, and comes back there.
            seen: list[int] = []

            def visit() -> None:
                with netns.entered(b):
                    seen.append(here())
                seen.append(here())

            thread = threading.Thread(target=visit)
            thread.start()
            thread.join()
            assert seen == [b.inode, a.inode]
        assert here() == home
        with pytest.raises(RuntimeError), netns.entered(a):
            raise RuntimeError
        assert here() == home
        with Rtnl(a) as links:
            links.apply(rtnl.link_up("lo"))
        with netns.socket_in(a, socket.AF_INET, socket.SOCK_STREAM) as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            with netns.socket_in(a, socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(server.getsockname())
            with pytest.raises(ConnectionRefusedError), socket.socket() as outside:
                outside.connect(server.getsockname())
    teardown(tmp_path / "l")


@own_host
def test_settings_are_of_the_namespace_and_are_verified(tmp_path: Path) -> None:
    with netns.create("kt.a", Ledger(tmp_path / "l", "me"), {"net.ipv4.ip_forward": "1"}) as ns:
        assert sysctl.read(ns, "net.ipv4.ip_forward") == "1"
        assert sysctl.read(HOST, "net.ipv4.ip_forward") == "0"
        sysctl.write(ns, "net.ipv4.ping_group_range", "0 1000")
        assert sysctl.read(ns, "net.ipv4.ping_group_range") == "0\t1000"
        with pytest.raises(Unsupported) as caught:
            sysctl.write(ns, "net.ipv4.no_such_setting", 1)
        assert "net.ipv4.no_such_setting" in str(caught.value)
        with pytest.raises(KernelError) as refused:
            sysctl.write(ns, "net.ipv4.ip_default_ttl", 100_000)
        assert refused.value.errno == errno.EINVAL
    teardown(tmp_path / "l")


@own_host
def test_commands_and_children_run_inside(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    with netns.create("kt.a", ledger) as ns, Rtnl(ns) as links:
        links.apply(rtnl.bridge("inside"))
        assert b"inside" in process.run(["ip", "link"], ns=ns).stdout
        out = tmp_path / "out"

        def child_main() -> int:
            out.write_bytes(process.run(["ip", "link"]).stdout)
            return 0

        assert process.fork_recorded(ledger, "child", child_main, ns=ns).wait(10) == 0
        assert b"inside" in out.read_bytes()
    teardown(tmp_path / "l")


@own_host
def test_teardown_ends_processes_links_mounts_and_files(tmp_path: Path) -> None:
    place = tmp_path / "l"
    ledger = Ledger(place, "me")
    ns = netns.create("kt.a", ledger)
    ledger.intend(Entry(EntryKind.LINK, "nk-kt"))
    with Rtnl(HOST) as host:
        host.apply(rtnl.veth("nk-kt", "port", ns))
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "inner"
    outer.mkdir()
    for path in (outer, inner):
        ledger.intend(Entry(EntryKind.MOUNT, str(path)))
        path.mkdir(exist_ok=True)
        process.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").touch()
    ledger.intend(Entry(EntryKind.DIRECTORY, str(tmp_path / "dir")))
    (tmp_path / "alone").touch()
    ledger.intend(Entry(EntryKind.FILE, str(tmp_path / "alone")))
    children = [
        process.fork_recorded(ledger, f"sleeper {i}", lambda: process.exec_program(["sleep", "60"]), ns=ns)
        for i in range(5)
    ]
    # A shell of the user keeps the namespace alive; the host's link must go all the same.
    began = time.monotonic()
    teardown(place, grace=5)
    assert time.monotonic() - began < 4
    assert [child.wait(5) for child in children] == [-signal.SIGTERM] * 5
    with Rtnl(HOST) as host:
        assert host.link_index("nk-kt") is None
    assert not (tmp_path / "dir").exists()
    assert not (tmp_path / "alone").exists()
    assert not place.exists()
    ns.close()
    teardown(place)


@own_host
def test_things_recorded_but_never_made_are_no_trouble(tmp_path: Path) -> None:
    place = tmp_path / "l"
    ledger = Ledger(place, "me")
    for entry in (
        Entry(EntryKind.NAMESPACE, "kt.never"), Entry(EntryKind.LINK, "nk-never"), Entry.process(2**22, 1),
        Entry(EntryKind.MOUNT, str(tmp_path / "never")), Entry(EntryKind.DIRECTORY, str(tmp_path / "never")),
        Entry(EntryKind.FILE, str(tmp_path / "never")),
    ):  # fmt: skip
        ledger.intend(entry)
    with ledger.path.open("ab") as file:
        file.write(b'["+","namespace","kt.to')
    teardown(place)
    assert not place.exists()


@own_host
def test_a_pid_used_again_is_spared(tmp_path: Path) -> None:
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
        os._exit(0)
    start = process.start_time(stranger)
    assert start is not None
    Ledger(tmp_path / "l", "me").intend(Entry.process(stranger, start - 5, "long gone"))
    teardown(tmp_path / "l")
    assert process.alive(stranger, start)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)


@own_host
def test_failures_are_gathered_and_stay_for_the_next_try(tmp_path: Path) -> None:
    place = tmp_path / "l"
    ledger = Ledger(place, "me")
    netns.create("kt.a", ledger).close()
    held = tmp_path / "held"
    held.mkdir()
    (held / "inside").mkdir()
    (held / "precious").touch()
    process.run(["mount", "--bind", "/etc", str(held / "inside")], check=True)
    ledger.intend(Entry(EntryKind.DIRECTORY, str(held)))
    ledger.intend(Entry(EntryKind.DIRECTORY, "/etc"))
    with pytest.raises(ExceptionGroup) as caught:
        teardown(place)
    texts = sorted(str(error) for error in caught.value.exceptions)
    assert len(texts) == 2
    assert "refused" in texts[0]
    assert "something is mounted on" in texts[1]
    assert os.path.exists("/etc/passwd")
    assert not netns.exists("kt.a")
    assert {entry.name for entry in read_all(place)} == {str(held), "/etc"}
    process.run(["umount", str(held / "inside")], check=True)
    with pytest.raises(ExceptionGroup):
        teardown(place)
    assert not held.exists()


@own_host
def test_a_state_directory_goes_with_the_ledgers_inside(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Ledger(state / "deep" / "ledgers", "me") as ledger:
        ledger.intend(Entry(EntryKind.DIRECTORY, str(state)))
        (state / "pki").mkdir()
        (state / "pki" / "key").touch()
    teardown(state / "deep" / "ledgers")
    assert not state.exists()


@own_host
def test_many_namespaces_go_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "me")
    with netns.create("kt.node", ledger) as node, Rtnl(node) as links:
        for i in range(100):
            with netns.create(f"kt.pod{i}", ledger) as pod:
                links.apply(rtnl.veth(f"v{i}", "eth0", pod))
        count = len(netns.names())
    assert count == 101
    teardown(tmp_path / "l")
    assert netns.names() == []


@own_host
def test_a_process_started_during_teardown_is_found(tmp_path: Path) -> None:
    """A supervisor that starts another part while it is being ended: the ledgers are read again."""
    place = tmp_path / "l"
    ready = tmp_path / "ready"

    def supervisor() -> int:
        own = Ledger(place, "supervisor")

        def restart(*_: object) -> None:
            process.fork_recorded(own, "late", lambda: process.exec_program(["sleep", "60"]))
            os._exit(0)

        signal.signal(signal.SIGTERM, restart)
        ready.touch()
        while True:
            signal.pause()

    child = process.fork_recorded(Ledger(place, "me"), "supervisor", supervisor)
    assert wait_for(ready.exists)
    teardown(place, grace=5)
    assert child.wait(5) == 0
    # The late one was handed to this process, which adopts orphans, and is dead.
    pid, status = os.waitpid(-1, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM, pid
