from __future__ import annotations

import errno
import pickle

import pytest

from netkit.kernel.errors import CommandFailed, KernelError, TimedOut, Unsupported, from_os_error


def test_the_text_names_place_operation_and_both_reasons() -> None:
    error = KernelError("ip link add br0 type bridge", "kt.switch", errno.EEXIST, "a word more")
    assert str(error) == "kt.switch: ip link add br0 type bridge: File exists; a word more"
    assert str(KernelError("fork")) == "fork"


@pytest.mark.parametrize(
    ("code", "predicate"),
    [
        (errno.ENODEV, "is_not_found"), (errno.ENOENT, "is_not_found"), (errno.EEXIST, "is_exists"),
        (errno.EPERM, "is_permission"), (errno.EOPNOTSUPP, "is_unsupported"),
    ],
)  # fmt: skip
def test_predicates(code: int, predicate: str) -> None:
    names = ("is_not_found", "is_exists", "is_permission", "is_unsupported")
    error = KernelError("x", errno=code)
    assert [name for name in names if getattr(error, name)] == [predicate]


@pytest.mark.parametrize("kind", [KernelError, TimedOut, Unsupported])
def test_errors_travel_between_processes(kind: type[KernelError]) -> None:
    error = kind("op", "ns", 2, "words", "advice")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.operation, again.namespace, again.errno, again.stderr, again.hint) == (
        "op", "ns", 2, "words", "advice",
    )  # fmt: skip


def test_a_failed_command_keeps_its_status() -> None:
    error = pickle.loads(pickle.dumps(CommandFailed("iptables-restore", "kt.n1", 2, "line 3 failed\n")))
    assert error.returncode == 2
    assert str(error) == "kt.n1: iptables-restore: line 3 failed"
    assert str(CommandFailed("nft", "", 1)) == "nft: exit status 1"


def test_from_os_error_keeps_the_errno() -> None:
    assert from_os_error(FileNotFoundError(errno.ENOENT, "gone"), "open x").is_not_found
