from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import examples

from netkit.kernel import ledger as module
from netkit.kernel.ledger import Entry, EntryKind, Ledger, read_all, replace_all

A = Entry(EntryKind.NAMESPACE, "kt.a")
B = Entry(EntryKind.DIRECTORY, "/var/lib/kt", "state")
P = Entry.process(12, 345, "agent")


def test_what_is_intended_and_not_forgotten_stands(tmp_path: Path) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(A)
        ledger.intend(B)
        ledger.intend(P)
        ledger.forget(A)
        assert ledger.entries() == [B, P]
    assert read_all(tmp_path) == [B, P]


def test_an_entry_is_on_disk_when_intend_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "agent")
    ledger.intend(A)
    assert read_all(tmp_path) == [A]
    ledger.close()


def test_reopening_continues(tmp_path: Path) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(A)
    with Ledger(tmp_path, "agent") as ledger:
        assert ledger.holds(EntryKind.NAMESPACE, "kt.a")
        ledger.forget(A)
    assert read_all(tmp_path) == []


def test_owners_are_read_together_and_things_count_once(tmp_path: Path) -> None:
    with Ledger(tmp_path, "one") as one, Ledger(tmp_path, "two") as two:
        one.intend(A)
        two.intend(A)
        two.intend(B)
    assert read_all(tmp_path) == [A, B]


def test_a_missing_directory_is_empty(tmp_path: Path) -> None:
    assert read_all(tmp_path / "nothing") == []


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_was_not_made(tmp_path: Path, cut: int) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(A)
        whole = ledger.path.stat().st_size
        ledger.intend(B)
    size = ledger.path.stat().st_size
    os.truncate(ledger.path, max(whole + 1, size - cut))
    # Without its newline the line may be whole: counting it is right too.
    assert read_all(tmp_path) == [A] if cut > 1 else [A, B]
    with Ledger(tmp_path, "agent") as again:
        again.intend(P)
    assert read_all(tmp_path)[0] == A
    assert read_all(tmp_path)[-1] == P


def test_a_second_writer_of_one_owner_does_not_lose_lines(tmp_path: Path) -> None:
    first = Ledger(tmp_path, "agent")
    first.intend(A)
    with first.path.open("ab") as torn:
        torn.write(b'["+", "name')
    second = Ledger(tmp_path, "agent")
    second.intend(B)
    first.intend(P)
    assert read_all(tmp_path) == [A, B, P]
    first.close()
    second.close()


def test_opening_compacts(tmp_path: Path) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        for number in range(100):
            entry = Entry(EntryKind.NAMESPACE, f"kt.{number}")
            ledger.intend(entry)
            ledger.forget(entry)
        ledger.intend(B)
        long = ledger.path.stat().st_size
    Ledger(tmp_path, "agent").close()
    assert ledger.path.stat().st_size < long / 10
    assert read_all(tmp_path) == [B]


def test_another_boot_took_all_but_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        for entry in (A, B, P):
            ledger.intend(entry)
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    assert read_all(tmp_path) == [B]
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(A)
    assert read_all(tmp_path) == [B, A]


def test_replace_all_keeps_only_what_remains(tmp_path: Path) -> None:
    with Ledger(tmp_path, "one") as one, Ledger(tmp_path, "two") as two:
        one.intend(A)
        two.intend(B)
    replace_all(tmp_path, [B])
    assert read_all(tmp_path) == [B]
    replace_all(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_names_with_any_character_survive(tmp_path: Path) -> None:
    entry = Entry(EntryKind.FILE, "/tmp/a \n\"b'\\ü", "x\ny")
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(entry)
    assert read_all(tmp_path) == [entry]


@pytest.mark.parametrize("owner", ["", "a/b", ".hidden"])
def test_bad_owners_are_refused(tmp_path: Path, owner: str) -> None:
    with pytest.raises(ValueError, match="bad ledger owner"):
        Ledger(tmp_path, owner)


def test_pid_and_start_are_of_processes_only() -> None:
    assert P.pid_and_start() == (12, 345)
    with pytest.raises(ValueError, match="not a process"):
        A.pid_and_start()


@settings(max_examples=examples(50), deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=30), st.integers(0, 2000))
def test_any_cut_leaves_a_prefix_of_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]], cut: int
) -> None:
    """A crash at any byte leaves the state after some whole number of steps, never a mixture."""
    directory = tmp_path_factory.mktemp("ledger")
    states: list[list[str]] = [[]]
    live: dict[str, None] = {}
    with Ledger(directory, "agent") as ledger:
        start = ledger.path.stat().st_size
        for add, number in steps:
            entry = Entry(EntryKind.NAMESPACE, f"n{number}")
            if add:
                ledger.intend(entry)
                live[entry.name] = None
            else:
                ledger.forget(entry)
                live.pop(entry.name, None)
            states.append(sorted(live))
    size = ledger.path.stat().st_size
    os.truncate(ledger.path, max(start, size - cut))
    assert sorted(entry.name for entry in read_all(directory)) in states


def test_each_line_is_json(tmp_path: Path) -> None:
    with Ledger(tmp_path, "agent") as ledger:
        ledger.intend(A)
        ledger.forget(A)
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert [line[0] for line in lines] == ["boot", "+", "-"]
