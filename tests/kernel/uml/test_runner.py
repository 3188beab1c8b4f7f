"""`tests/uml/run`: a command in a guest ends and speaks as it would here, and nothing is left of either."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kernel import wait_for
from uml.command import KERNEL
from uml.job import JobDirectory, sweep

RUN = Path(__file__).parents[2] / "uml" / "run"

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which(KERNEL) is None, reason=f"needs {KERNEL} (user-mode-linux)"
)


def guest(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(RUN), "--mem", "256M", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def processes_of(job: str) -> list[str]:
    """Processes that have the job's directory on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if job.encode() in path.read_bytes():
                found.append(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextlib.contextmanager
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A guest at work, and its job's directory."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with guest("--", "sh", "-c", "echo up; exec sleep 1000", env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            (job,) = map(str, tmp_path.iterdir())
            assert len(processes_of(job)) > 2
            yield process, job
        finally:
            process.kill()


def test_status_and_both_outputs_arrive_byte_for_byte() -> None:
    script = r"seq 1 20000; printf 'a\r\nb\tc\001\377 no end' >&2; exit 7"
    numbers = b"".join(b"%d\n" % number for number in range(1, 20001))
    assert ended(guest("--", "sh", "-c", script)) == (7, numbers, b"a\r\nb\tc\x01\xff no end")


def test_environment_directory_and_arguments_pass_unchanged(tmp_path: Path) -> None:
    odd = 'it\'s "quoted" $HOME `x`\n second\\line ü '
    (tmp_path / "seen").write_text("content")
    process = guest(
        *("--cwd", str(tmp_path), "--env", f"GIVEN={odd}", "--"),
        *(
            "sh",
            "-c",
            r'printf "%s|%s|%s|%s|" "$INHERITED" "$GIVEN" "$1" "$NO_COLOR"; cat seen; false',
            "sh",
            odd,
        ),
        env={"PATH": os.environ["PATH"], "INHERITED": odd},
    )
    assert ended(process) == (1, f"{odd}|{odd}|{odd}|1|content".encode(), b"")


def test_time_limit_is_124() -> None:
    assert ended(guest("--timeout", "1", "--", "sh", "-c", "echo begun; sleep 1000")) == (
        124,
        b"begun\n",
        b"",
    )


def test_panic_is_125_and_shows_the_console() -> None:
    status, _, err = ended(guest("--", "sh", "-c", "echo c >/proc/sysrq-trigger"))
    assert status == 125
    assert b"sysrq triggered crash" in err
    assert b"Call Trace" in err


def test_runner_that_is_killed_leaves_no_process_and_its_directory_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(tmp_path) as (process, job):
        process.kill()
        process.communicate()
        assert wait_for(lambda: not processes_of(job))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert sweep() == []
    os.utime(job, (0, time.time() - 3600))
    with JobDirectory.created() as running:
        os.utime(running.path, (0, time.time() - 3600))
        assert sweep() == []
        assert list(tmp_path.iterdir()) == [running.path]


def test_runner_that_is_told_to_stop_takes_everything_along(tmp_path: Path) -> None:
    with started(tmp_path) as (process, job):
        process.terminate()
        assert ended(process) == (128 + signal.SIGTERM, b"", b"")
        assert processes_of(job) == []
        assert list(tmp_path.iterdir()) == []


def test_not_even_the_guests_root_writes_to_the_host_but_where_it_may(tmp_path: Path) -> None:
    shown, writable = tmp_path / "shown", tmp_path / "writable"
    shown.mkdir()
    writable.mkdir()
    script = f"""
        mkdir /run/host && mount -t hostfs none /run/host
        for try in 1 2; do
          touch /run/host{shown}/escaped
          mount -o remount,rw /run/host
        done
        echo guest >only-here && cat only-here
        echo host >{writable}/report
    """
    status, out, err = ended(guest("--cwd", str(shown), "--rw", str(writable), "--", "sh", "-c", script))
    assert (status, out) == (0, b"guest\n"), err
    assert err.count(b"Read-only file system") == 2
    assert list(shown.iterdir()) == []
    assert (writable / "report").read_text() == "host\n"


def test_guests_run_side_by_side() -> None:
    running = [guest("--", "echo", str(number)) for number in range(2)]
    assert [ended(process) for process in running] == [(0, b"0\n", b""), (0, b"1\n", b"")]
