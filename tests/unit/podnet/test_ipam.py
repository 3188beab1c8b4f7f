from __future__ import annotations

import os
import signal
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.properties import examples

from netkit.podnet.address import PoolExhausted
from netkit.podnet.ipam import LeaseFileBroken, Leases
from netkit.podnet.pod import PodRef, link_name, sandbox_name

RANGE = IPv4Network("10.244.1.0/29")


def pod(uid: str) -> PodRef:
    return PodRef("default", f"web-{uid}", uid)


def test_a_pod_keeps_its_lease_over_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "leases"
    first = Leases(file).take(RANGE, pod("a"), "kt.default.web-a.a")
    again = Leases(file)
    assert again.take(RANGE, pod("a"), "other") == first
    assert again.all() == [first]


def test_a_released_address_comes_last_also_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "leases"
    leases = Leases(file)
    leases.take(RANGE, pod("a"), "n")
    leases.release("a")
    given = [Leases(file).take(RANGE, pod(uid), "n").address for uid in "bcdef"]
    assert [str(address) for address in given] == [f"10.244.1.{n}" for n in (3, 4, 5, 6, 2)]


def test_links_get_new_names_for_the_same_pod(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    first = leases.take(RANGE, pod("a"), "n").link
    leases.release("a")
    assert leases.take(RANGE, pod("a"), "n").link != first


def test_a_full_range_gives_nothing(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases")
    for uid in "abcde":
        leases.take(RANGE, pod(uid), "n")
    with pytest.raises(PoolExhausted):
        leases.take(RANGE, pod("f"), "n")
    assert leases.get("f") is None


def test_nothing_is_given_when_it_cannot_be_written(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    leases = Leases(place / "leases")
    kept = leases.take(RANGE, pod("a"), "n")
    os.rename(place, tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        leases.take(RANGE, pod("b"), "n")
    with pytest.raises(FileNotFoundError):
        leases.release("a")
    assert leases.all() == [kept]
    os.rename(tmp_path / "away", place)
    assert str(leases.take(RANGE, pod("b"), "n").address) == "10.244.1.3"


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9}', '{"version": 1, "leases": [{}], "last": ""}'])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "leases").write_text(text)
    with pytest.raises(LeaseFileBroken):
        Leases(tmp_path / "leases")


def test_a_double_address_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "leases"
    leases = Leases(file)
    leases.take(RANGE, pod("a"), "n")
    leases.take(RANGE, pod("b"), "n")
    file.write_text(file.read_text().replace("10.244.1.3", "10.244.1.2"))
    with pytest.raises(LeaseFileBroken, match="twice"):
        Leases(file)


def test_names() -> None:
    ref = PodRef("default", "web", "0123456789")
    assert sandbox_name("demo", ref) == "demo.default.web.012345"
    assert link_name("0123456789", 1).startswith("veth")
    assert len(link_name("0123456789", 1)) == 12


def test_long_pod_names_are_cut_and_differ() -> None:
    names = {sandbox_name("c" * 63, PodRef("n" * 63, "p" * 252 + end, "0123456789")) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 255 for name in names)


TAKER = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from netkit.podnet.ipam import Leases
from netkit.podnet.pod import PodRef
leases = Leases(Path(sys.argv[1]))
number = 0
while True:
    uid = f"{sys.argv[2]}-{number}"
    lease = leases.take(IPv4Network("10.244.1.0/26"), PodRef("default", uid, uid), uid)
    print("take", uid, lease.address, flush=True)
    if len(leases.all()) > 40:
        oldest = leases.all()[0].uid
        leases.release(oldest)
        print("gone", oldest, "-", flush=True)
    number += 1
"""


def test_no_kill_makes_an_address_be_given_twice(tmp_path: Path) -> None:
    """Who is killed at any moment has given nothing that its successor does not know, nor keeps what it gave back."""
    file = tmp_path / "leases"
    held: dict[str, str] = {}
    for life, lines in enumerate((1, 7, 40, 41, 90, 133)):
        with subprocess.Popen(
            [sys.executable, "-c", TAKER, str(file), str(life)], stdout=subprocess.PIPE, text=True
        ) as taker:
            assert taker.stdout is not None
            told = [taker.stdout.readline() for _ in range(lines)]
            taker.send_signal(signal.SIGKILL)
            told += taker.stdout.readlines()
        for line in filter(lambda text: text.endswith("\n"), told):
            what, uid, address = line.split()
            if what == "take":
                assert address not in held.values()
                held[uid] = address
            else:
                del held[uid]
        known = {lease.uid: str(lease.address) for lease in Leases(file).all()}
        # One more may have been written down, or taken off, by who did not live to say so.
        assert len(set(known.items()) ^ set(held.items())) <= 1
        assert len(set(known.values())) == len(known)
        held = known
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".new")] == ["leases"]


class Life(RuleBasedStateMachine):
    """Takes, releases and restarts in any order: one address never has two pods."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._place = tempfile.TemporaryDirectory()
        self.file = Path(self._place.name) / "leases"
        self.leases = Leases(self.file)
        self.held: dict[str, IPv4Address] = {}

    @rule(uid=st.sampled_from("abcdefgh"))
    def take(self, uid: str) -> None:
        try:
            lease = self.leases.take(RANGE, pod(uid), "n")
        except PoolExhausted:
            assert len(self.held) == 5
        else:
            assert self.held.setdefault(uid, lease.address) == lease.address

    @rule(uid=st.sampled_from("abcdefgh"))
    def release(self, uid: str) -> None:
        self.leases.release(uid)
        self.held.pop(uid, None)

    @rule()
    def restart(self) -> None:
        self.leases = Leases(self.file)

    @invariant()
    def agrees(self) -> None:
        assert {lease.uid: lease.address for lease in self.leases.all()} == self.held
        assert len(set(self.held.values())) == len(self.held)

    def teardown(self) -> None:
        self._place.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=examples(20), stateful_step_count=20, deadline=None)
