"""The command line of `tests/uml/run`: one command in a user-mode-Linux guest, as if it ran here.

    tests/uml/run [--mem 768M] [--timeout 600] [--rw DIR]... [--env NAME=VALUE]... -- COMMAND [ARGUMENT...]

The guest sees this machine's files and changes none of them, but below --rw directories. Its exit status, stdout and
stderr are the command's. Other exit statuses: 124 time limit, 125 the guest died or could not be started (with the
end of its console on stderr), 128+N this program got signal N.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from uml.guest import DIED, Guest
from uml.job import JobDirectory, Request

KERNEL = "linux.uml"
"""The program of Debian's package user-mode-linux."""
_NOT_PASSED = frozenset({"TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"})
_UNITS = {"M": 20, "G": 30}


class Stopped(Exception):
    """This process was told to stop by signal number `args[0]`."""


def main(argv: Sequence[str]) -> int:
    """Parse, run, return the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if (kernel := shutil.which(args.kernel)) is None:
        print(f"uml: no kernel {args.kernel} (Debian: apt install user-mode-linux)", file=sys.stderr)
        return DIED
    if os.geteuid() != 0:
        print("uml: keeping the guest from writing to this machine needs root: use sudo", file=sys.stderr)
        return DIED
    try:
        request = Request(
            command=tuple(args.command),
            kernel=os.path.abspath(kernel),
            cwd=args.cwd.resolve(),
            env=environment({} if args.clean_env else os.environ, args.env, tty=sys.stdout.isatty()),
            memory=args.mem,
            seconds=args.timeout,
            writable=tuple(path.resolve() for path in args.rw),
            visible=tuple(path.resolve() for path in args.ro),
        )
    except ValueError as error:
        parser.error(str(error))
    return run(request, keep=args.keep)


def run(request: Request, *, keep: bool = False) -> int:
    """Run `request` on this process's stdout and stderr: the exit status. Takes over the signals that end programs."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with JobDirectory.created(keep=keep) as job:
            guest = Guest(request, job)
            try:
                guest.start()
                return guest.pump(sys.stdout.buffer, sys.stderr.buffer)
            finally:
                guest.close()
                if keep:
                    print(f"uml: kept {job.path}", file=sys.stderr)
    except Stopped as stopped:
        return 128 + int(stopped.args[0])
    except BrokenPipeError:
        # Nobody reads what the command writes. Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"uml: {error}", file=sys.stderr)
        return DIED


def environment(inherited: Mapping[str, str], extra: Sequence[str], *, tty: bool) -> dict[str, str]:
    """What the command finds in its environment; `extra` are NAME=VALUE.

    Its stdout is a terminal of the guest in any case, so what is no terminal here (`tty`) asks for no colours.
    """
    env = {name: value for name, value in inherited.items() if name not in _NOT_PASSED}
    if not tty:
        env.setdefault("NO_COLOR", "1")
    for item in extra:
        name, _, value = item.partition("=")
        env[name] = value
    return env


def memory(text: str) -> int:
    """`768M` or `2G` in bytes. ArgumentTypeError for anything else."""
    if text[:-1].isdecimal() and text[-1:] in _UNITS:
        return int(text[:-1]) << _UNITS[text[-1]]
    raise argparse.ArgumentTypeError(f"{text}: wants a number and M or G")


def variable(text: str) -> str:
    """NAME=VALUE as it is. ArgumentTypeError for anything else."""
    name, sign, _ = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text}: wants NAME=VALUE")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tests/uml/run", description="Run a command in a user-mode-Linux guest."
    )
    parser.add_argument("--mem", type=memory, default=memory("768M"), help="memory of the guest (768M)")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds the command may take (600)")
    parser.add_argument("--cwd", type=Path, default=Path.cwd(), help="where the command runs (here)")
    parser.add_argument(
        "--rw", type=Path, action="append", default=[], metavar="DIR", help="changes in it reach this machine"
    )
    parser.add_argument(
        "--ro",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="show it too, though it is below /tmp or /run",
    )
    parser.add_argument("--env", type=variable, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--clean-env", action="store_true", help="pass nothing of this environment but --env")
    parser.add_argument("--kernel", default=KERNEL, help=f"the user-mode kernel ({KERNEL})")
    parser.add_argument(
        "--keep", action="store_true", help="leave the job's directory with the console's log"
    )
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    return parser


def _stop(number: int, _frame: object) -> None:
    # A second signal must not interrupt the cleaning up.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number)
