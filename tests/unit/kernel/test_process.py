from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netkit.kernel import process
from netkit.kernel.errors import CommandFailed, TimedOut, Unsupported
from netkit.kernel.ledger import Ledger, read_all


def test_run_returns_what_the_command_wrote() -> None:
    done = process.run(["sh", "-c", "cat; echo err >&2; exit 3"], input=b"in")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"err\n")
    with pytest.raises(CommandFailed, match="err"):
        done.check()


def test_run_kills_what_takes_too_long() -> None:
    began = time.monotonic()
    with pytest.raises(TimedOut, match=r"killed after 0\.1 s"):
        process.run(["sleep", "60"], timeout=0.1)
    assert time.monotonic() - began < 10


def test_run_says_which_command_is_missing() -> None:
    with pytest.raises(Unsupported) as caught:
        process.run(["no-such-program-at-all"])
    assert "no-such-program-at-all" in caught.value.hint


def test_a_process_is_known_by_pid_and_start() -> None:
    start = process.start_time(os.getpid())
    assert start is not None
    assert process.alive(os.getpid(), start)
    assert not process.alive(os.getpid(), start + 1)
    assert process.open_pidfd(os.getpid(), start + 1) is None


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.start_time(child.pid) is None
    finally:
        child.wait()


def test_the_child_is_on_the_ledger_before_it_runs(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", "me")
    proof = tmp_path / "proof"

    def child_main() -> int:
        mine = [entry for entry in read_all(tmp_path / "ledger") if entry.pid_and_start()[0] == os.getpid()]
        proof.write_text(mine[0].detail)
        return 7

    child = process.fork_recorded(ledger, "worker", child_main)
    assert child.wait(10) == 7
    assert proof.read_text() == "worker"
    assert ledger.entries() == [child.entry]
    ledger.forget(child.entry)
    assert read_all(tmp_path / "ledger") == []
    ledger.close()


def test_a_child_whose_entry_cannot_be_written_does_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", "me")
    ledger.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        process.fork_recorded(ledger, "worker", lambda: (tmp_path / "proof").write_text("ran"))
    assert not (tmp_path / "proof").exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_parent_killed_before_recording_leaves_no_child(tmp_path: Path) -> None:
    """The parent is killed inside `intend`; its child must end by itself without running."""
    code = f"""
import os, signal, sys
from pathlib import Path
from netkit.kernel import process
from netkit.kernel.ledger import Ledger
class Deadly(Ledger):
    def intend(self, entry):
        Path({str(tmp_path / "pid")!r}).write_text(entry.name)
        os.kill(os.getpid(), signal.SIGKILL)
process.fork_recorded(Deadly(Path({str(tmp_path / "l")!r}), "me"), "x", lambda: Path({str(tmp_path / "ran")!r}).touch())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    pid, _, start = (tmp_path / "pid").read_text().partition(":")
    deadline = time.monotonic() + 10
    while process.alive(int(pid), int(start)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (tmp_path / "ran").exists()


def test_a_child_that_raises_ends_with_one(tmp_path: Path) -> None:
    with Ledger(tmp_path, "me") as ledger:
        assert process.fork_recorded(ledger, "x", lambda: 1 // 0).wait(10) == 1
        assert process.fork_recorded(ledger, "x", lambda: sys.exit(5)).wait(10) == 5
        assert (
            process.fork_recorded(ledger, "x", lambda: process.exec_program(["no-such-thing"])).wait(10)
            == 127
        )


def test_terminate_gives_grace_and_then_kills(tmp_path: Path) -> None:
    with Ledger(tmp_path, "me") as ledger:
        polite = process.fork_recorded(ledger, "polite", lambda: process.exec_program(["sleep", "60"]))
        assert polite.terminate(10) == -signal.SIGTERM
        ready = tmp_path / "ready"

        def stubborn_main() -> int:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ready.touch()
            time.sleep(60)
            return 0

        stubborn = process.fork_recorded(ledger, "stubborn", stubborn_main)
        while not ready.exists():
            time.sleep(0.005)
        assert stubborn.terminate(0.1) == -signal.SIGKILL


def test_terminate_all_spares_strangers_and_itself() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        start = process.start_time(sleeper.pid)
        assert start is not None
        own = process.start_time(os.getpid())
        assert own is not None
        assert process.terminate_all([(sleeper.pid, start + 1), (os.getpid(), own)], 0.1) == []
        assert sleeper.poll() is None
        assert process.terminate_all([(sleeper.pid, start)], 5) == []
        assert sleeper.wait() == -signal.SIGTERM
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_stopped_process_is_ended_too() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    start = process.start_time(sleeper.pid)
    assert start is not None
    sleeper.send_signal(signal.SIGSTOP)
    assert process.terminate_all([(sleeper.pid, start)], 5) == []
    assert sleeper.wait() == -signal.SIGTERM


def test_the_parent_death_signal_reaches_the_child(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from netkit.kernel import process
from netkit.kernel.ledger import Ledger
ledger = Ledger(Path({str(tmp_path)!r}), "me")
child = process.fork_recorded(ledger, "x", lambda: process.exec_program(["sleep", "60"]), parent_death_signal=9)
print(child.pid, child.start_time)
"""
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    pid, start = map(int, text.split())
    deadline = time.monotonic() + 10
    while process.alive(pid, start):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_loop_learns_of_the_end(tmp_path: Path) -> None:
    with Ledger(tmp_path, "me") as ledger:
        child = process.fork_recorded(ledger, "x", lambda: process.exec_program(["sleep", "60"]))
        waiting = asyncio.create_task(child.exited())
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(waiting, 10) == -signal.SIGTERM
        assert child.poll() == -signal.SIGTERM
