"""Where tests of IPVS run is decided by what the machine has, and the guest's script by the request alone."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pytest
from uml.command import environment, main, memory, variable
from uml.job import Request
from uml.lane import Machine, Place, decide, junit_directories


@pytest.mark.parametrize(
    ("machine", "place", "reason"),
    [
        (Machine(True, True, "x86_64", "/k"), Place.HERE, "has ip_vs"),
        (Machine(True, True, "aarch64"), Place.HERE, "has ip_vs"),
        (Machine(True, False, "x86_64", "/k"), Place.GUEST, "/k"),
        (Machine(True, True, "x86_64", "/k", asked=True), Place.GUEST, "/k"),
        (Machine(True, False, "x86_64"), Place.NOWHERE, "user-mode-linux"),
        (Machine(False, True, "x86_64", "/k", asked=True), Place.NOWHERE, "sudo"),
        (Machine(True, False, "aarch64"), Place.NOWHERE, "aarch64"),
    ],
)
def test_place(machine: Machine, place: Place, reason: str) -> None:
    decision = decide(machine)
    assert decision.place is place
    assert reason in decision.reason


def test_reports_are_written_on_the_host(tmp_path: Path) -> None:
    wanted = ["-q", f"--junitxml={tmp_path}/a/x.xml", "--junit-xml", f"{tmp_path}/b/y.xml", "tests/ipvs"]
    assert junit_directories(wanted) == [tmp_path / "a", tmp_path / "b"]
    assert junit_directories(["--junitxml"]) == []


def test_environment_without_what_belongs_to_this_shell() -> None:
    inherited = {"A": "1", "TMPDIR": "/elsewhere", "PYTHONDONTWRITEBYTECODE": "1"}
    assert environment(inherited, ["B=x=y"], tty=True) == {
        "A": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "B": "x=y",
    }
    assert environment({}, [], tty=False) == {"NO_COLOR": "1"}


def test_memory_and_variables_are_checked() -> None:
    assert (memory("768M"), memory("2G")) == (768 << 20, 2 << 30)
    for text in ("", "M", "12", "-1M", "1T"):
        with pytest.raises(argparse.ArgumentTypeError):
            memory(text)
    for text in ("A", "1A=x", "=x"):
        with pytest.raises(argparse.ArgumentTypeError):
            variable(text)


def test_directory_hidden_in_the_guest_is_shown_and_names_that_cannot_be_mounted_are_refused() -> None:
    """What is below /tmp is hidden; pytest's own directories may be elsewhere."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        hidden = Path(directory)
        assert "lowerdir=/run/uml/old/tmp" in Request(("true",), "/k", hidden).script()
        assert "overlay" not in Request(("true",), "/k", Path("/usr")).script()
        bad = hidden / "a,b"
        bad.mkdir()
        with pytest.raises(ValueError, match="cannot be mounted"):
            Request(("true",), "/k", Path("/usr"), writable=(bad,))
        with pytest.raises(ValueError, match="no directory"):
            Request(("true",), "/k", hidden / "missing")


def test_missing_kernel_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kernel", "/no/such/kernel", "--", "true"]) == 125
    assert "user-mode-linux" in capsys.readouterr().err
