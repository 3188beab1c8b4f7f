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
from netkit.cluster.state_file import read, write
from netkit.kernel.process import alive, terminate_all

SCRIPT = """
import json, logging, os, signal, sys
logging.basicConfig(level=logging.INFO)
from pathlib import Path
from netkit.cluster.keeper import REFUSED, Keeper, Part, Wish
from netkit.cluster.state_file import read, write
directory = Path(sys.argv[1])

def part():
    signal.pause()
    return 0

def stubborn():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return part()

class Kept:
    directory = directory / "wish"

    def wish(self):
        found = read(self.directory / "wish.json")
        parts = tuple(Part(label, stubborn if label == "stubborn" else part) for label in found["parts"])
        return Wish(found["asked"], parts, frozenset(found["killed"]))

    def fulfilled(self):
        answer = read(self.directory / "answer.json")
        return answer["asked"] if not answer["error"] else ""

    def answer(self, asked, error=""):
        write(self.directory / "answer.json", {"asked": asked, "error": error})

    def prepare(self, asked):
        with (self.directory.parent / "prepared").open("a") as file:
            file.write(asked + "\\n")
        if asked == "impossible":
            self.answer(asked, "it cannot be")
            return REFUSED
        if asked == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        while asked == "slow" and not (self.directory.parent / "go").exists():
            pass
        return 0

Keeper(directory, directory / "ledger", Kept()).run()
"""


def wish(profile: Profile, asked: str, *parts: str, killed: tuple[str, ...] = ()) -> None:
    value = {"asked": asked, "parts": parts, "killed": killed}
    write(profile.directory / "wish" / "wish.json", value)


def answer(profile: Profile, asked: str) -> str:
    """The error in the keeper's answer to that wish."""
    path = profile.directory / "wish" / "answer.json"
    wait_until(f"an answer to {asked}", lambda: (read(path) or {})["asked"] == asked)
    return str((read(path) or {})["error"])


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
    wish(made, "first", "a", "b")
    write(made.directory / "wish" / "answer.json", {"asked": "first", "error": ""})
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


def test_another_wish_ends_and_starts_parts_and_the_rest_stays(profile: Profile) -> None:
    before = running(profile)
    wish(profile, "other", "b", "c")
    assert answer(profile, "other") == ""
    wait_until("c runs", lambda: "c" in running(profile))
    after = running(profile)
    assert set(after) == {ACTIVE, STANDBY, "b", "c"}
    assert after["b"] == before["b"]
    assert (profile.directory / "prepared").read_text() == "other\n"


def test_who_does_not_listen_is_killed_and_who_lost_its_power_at_once(profile: Profile) -> None:
    wish(profile, "with", "a", "stubborn")
    answer(profile, "with")
    wait_until("it runs", lambda: "stubborn" in running(profile))
    wish(profile, "without", "a")
    answer(profile, "without")
    assert set(running(profile)) == {ACTIVE, STANDBY, "a"}
    wish(profile, "again", "a", "stubborn")
    answer(profile, "again")
    wait_until("it runs", lambda: "stubborn" in running(profile))
    wish(profile, "dark", "a", killed=("stubborn",))
    answer(profile, "dark")
    assert set(running(profile)) == {ACTIVE, STANDBY, "a"}


@pytest.mark.parametrize(
    ("asked", "error"),
    [("impossible", "it cannot be"), ("deadly", "the process that makes it so ended with status -9")],
)
def test_a_wish_that_fails_is_answered_and_the_next_one_is_taken(
    profile: Profile, asked: str, error: str
) -> None:
    wish(profile, asked, "a", "b", "c")
    assert answer(profile, asked) == error
    wait_until("who said so is gone", lambda: "preparing" not in running(profile))
    assert set(running(profile)) == {ACTIVE, STANDBY, "a", "b"}
    wish(profile, "after", "a", "b", "d")
    assert answer(profile, "after") == ""
    wait_until("d runs", lambda: "d" in running(profile))


@pytest.mark.parametrize("label", [ACTIVE, STANDBY])
def test_a_wish_outlives_a_keeper_that_is_killed_in_the_midst_of_it(profile: Profile, label: str) -> None:
    wish(profile, "slow", "b", "c")
    wait_until("it is being prepared", lambda: "preparing" in running(profile))
    os.kill(running(profile)[label], signal.SIGKILL)
    wait_until("both keepers", lambda: {ACTIVE, STANDBY} <= set(running(profile)))
    (profile.directory / "go").touch()
    assert answer(profile, "slow") == ""
    wait_until("the wish is true", lambda: set(running(profile)) == {ACTIVE, STANDBY, "b", "c"})


def test_a_wish_that_comes_in_the_midst_of_another_is_the_one_that_counts(profile: Profile) -> None:
    wish(profile, "slow", "a", "c")
    wait_until("it is being prepared", lambda: "preparing" in running(profile))
    wish(profile, "last", "a", "d")
    (profile.directory / "go").touch()
    assert answer(profile, "last") == ""
    wait_until("the wish is true", lambda: set(running(profile)) == {ACTIVE, STANDBY, "a", "d"})


def test_parts_that_were_asked_for_at_run_time_outlive_their_keepers(profile: Profile) -> None:
    wish(profile, "more", "a", "b", "c")
    answer(profile, "more")
    wait_until("c runs", lambda: "c" in running(profile))
    kept = running(profile)
    for _ in range(2):
        active = running(profile)[ACTIVE]
        os.kill(active, signal.SIGKILL)
        wait_until("another keeper", lambda active=active: running(profile).get(ACTIVE, active) != active)
        wait_until("both keepers", lambda: {ACTIVE, STANDBY} <= set(running(profile)))
    assert {label: running(profile)[label] for label in "abc"} == {label: kept[label] for label in "abc"}
    os.kill(kept["c"], signal.SIGKILL)
    wait_until("c is back", lambda: running(profile).get("c", kept["c"]) != kept["c"])
