"""The two keepers: whatever is killed comes back, and a taken-down cluster stays down. Needs no root."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netkit.cluster.down import stop_keepers
from netkit.cluster.keeper import ACTIVE, STANDBY, recorded_processes
from netkit.cluster.profile import Profile
from netkit.kernel.process import alive, terminate_all

SCRIPT = """
import logging, os, signal, sys
logging.basicConfig(level=logging.INFO)
from pathlib import Path
from netkit.cluster.keeper import Keeper, Part
directory = Path(sys.argv[1])
def part():
    signal.pause()
    return 0
Keeper(directory, directory / "ledger", [Part("a", part), Part("b", part)]).run()
"""


def wait_until(what: str, probe: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def running(profile: Profile) -> dict[str, int]:
    """Label to pid of every recorded process that lives and has begun its work (it names itself first)."""
    found = {}
    for entry in recorded_processes(profile.ledger):
        pid, start = entry.pid_and_start()
        with suppress(FileNotFoundError, ProcessLookupError):
            begun = Path(f"/proc/{pid}/comm").read_text() == f"nk:{entry.detail}\n"
            if begun and alive(pid, start):
                found[entry.detail] = pid
    return found


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[Profile]:
    """A kept cluster of two parts that do nothing."""
    made = Profile("kept", tmp_path)
    made.directory.mkdir()
    keeper = subprocess.Popen([sys.executable, "-c", SCRIPT, str(made.directory)], start_new_session=True)
    try:
        wait_until("all four run", lambda: len(running(made)) == 4)
        yield made
    finally:
        stop_keepers(made)
        terminate_all([entry.pid_and_start() for entry in recorded_processes(made.ledger)], grace=0.1)
        keeper.wait()
        assert not running(made)


def test_the_parts_and_both_keepers_run(profile: Profile) -> None:
    assert set(running(profile)) == {ACTIVE, STANDBY, "a", "b"}


@pytest.mark.parametrize("label", [ACTIVE, STANDBY, "a", "b"])
def test_what_is_killed_comes_back_and_the_rest_stays(profile: Profile, label: str) -> None:
    before = running(profile)
    os.kill(before[label], signal.SIGKILL)

    def replaced() -> bool:
        now = running(profile)
        return set(now) == set(before) and now[label] != before[label]

    wait_until(f"another {label}", replaced)
    after = running(profile)
    survivors = {"a", "b"} - {label}
    assert {name: after[name] for name in survivors} == {name: before[name] for name in survivors}


def test_random_kills_end_in_the_full_set(profile: Profile) -> None:
    choice = random.Random(20)
    for _ in range(20):
        label = choice.choice([ACTIVE, STANDBY, "a", "b"])
        victim = running(profile).get(label)
        if victim is None:
            continue
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        # Never both keepers within the moment it takes to make a new standby.
        wait_until("it is dead", lambda victim=victim: victim not in running(profile).values())
        wait_until("both keepers", lambda: {ACTIVE, STANDBY} <= set(running(profile)))
    wait_until("the full set", lambda: set(running(profile)) == {ACTIVE, STANDBY, "a", "b"})


def test_stopped_keepers_start_nothing_again(profile: Profile) -> None:
    stop_keepers(profile)
    parts = running(profile)
    assert set(parts) == {"a", "b"}
    os.kill(parts["a"], signal.SIGKILL)
    wait_until("a is gone", lambda: "a" not in running(profile))
    assert set(running(profile)) == {"b"}
