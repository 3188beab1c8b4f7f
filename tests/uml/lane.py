"""Where tests that need IPVS run, and pytest run there: the program `tests/uml/lane`, called by `tests/run`.

    tests/uml/lane [--kernel PATH] [--mem 768M] [--timeout 1800] -- PYTEST_ARGUMENT...

Here, if this kernel has ip_vs; else in one user-mode-Linux guest for all of them; else nowhere, which is said, and
which fails where CI=true: a lane that silently never runs proves nothing. `--kernel` asks for a guest in any case.
The exit status is pytest's, or the runner's (see `command`). A file asked for with --junitxml is written on this
machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from uml.command import KERNEL, environment, memory, run
from uml.job import Request

_IP_VS = Path("/proc/net/ip_vs")
_CHOSEN = "KUBE_NETKIT_IPVS_LANE"
_JUNIT = ("--junitxml", "--junit-xml")
GUEST_MEMORY = "768M"
GUEST_SECONDS = 1800.0


class Place(Enum):
    """Where the lane runs."""

    HERE = "here"
    GUEST = "guest"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides. `kernel` is the path of a user-mode kernel, "" without one; `asked` that it was named by hand."""

    root: bool
    ip_vs: bool
    architecture: str
    kernel: str = ""
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """A place and, for people, the reason."""

    place: Place
    reason: str


def decide(machine: Machine) -> Decision:
    """Choose the place."""
    if not machine.root:
        return Decision(Place.NOWHERE, "needs root, here as in a guest: use sudo")
    if machine.asked:
        return Decision(Place.GUEST, f"in a guest of the kernel {machine.kernel}")
    if machine.ip_vs:
        return Decision(Place.HERE, "on this kernel, which has ip_vs")
    lacking = "needs ip_vs in this kernel (modprobe ip_vs)"
    if machine.architecture != "x86_64":
        return Decision(Place.NOWHERE, f"{lacking}; there is no user-mode Linux for {machine.architecture}")
    if not machine.kernel:
        return Decision(Place.NOWHERE, f"{lacking}, or {KERNEL} (Debian: apt install user-mode-linux)")
    return Decision(Place.GUEST, f"in a user-mode-Linux guest ({machine.kernel})")


def ip_vs_missing() -> str:
    """Why IPVS cannot be used on this kernel, "" if it can. Loads the module where that is possible."""
    if not _IP_VS.exists() and os.geteuid() == 0 and (modprobe := shutil.which("modprobe")):
        subprocess.run([modprobe, "--quiet", "ip_vs"], check=False, capture_output=True)
    return "" if _IP_VS.exists() else "this kernel has no ip_vs (CONFIG_IP_VS, modprobe ip_vs)"


def required() -> bool:
    """Whether skipping is a failure: in continuous integration (CI=true), and where this lane has chosen the place."""
    return os.environ.get("CI", "").lower() in ("true", "1") or _CHOSEN in os.environ


def main(argv: Sequence[str]) -> int:
    """Choose the place, run pytest there, return the exit status."""
    parser = argparse.ArgumentParser(
        prog="tests/uml/lane", description="Run pytest on a kernel that has ip_vs."
    )
    parser.add_argument("--kernel", default="", help="a user-mode kernel; asks for a guest in any case")
    parser.add_argument(
        "--mem", type=memory, default=memory(GUEST_MEMORY), help=f"of the guest ({GUEST_MEMORY})"
    )
    parser.add_argument(
        "--timeout", type=float, default=GUEST_SECONDS, help=f"in seconds ({GUEST_SECONDS:g})"
    )
    parser.add_argument("arguments", nargs="*", metavar="-- PYTEST_ARGUMENT")
    args = parser.parse_args(argv)
    found = shutil.which(args.kernel or KERNEL) or ""
    if args.kernel and not found:
        parser.error(f"no kernel {args.kernel}")
    decision = decide(
        Machine(
            root=os.geteuid() == 0,
            ip_vs=not args.kernel and not ip_vs_missing(),
            architecture=platform.machine(),
            kernel=os.path.abspath(found) if found else "",
            asked=bool(args.kernel),
        )
    )
    print(f"ipvs: {decision.reason}", flush=True)
    command = (sys.executable, "-m", "pytest", *args.arguments)
    match decision.place:
        case Place.HERE:
            return subprocess.run(command, check=False, env={**os.environ, _CHOSEN: "here"}).returncode
        case Place.GUEST:
            written = junit_directories(args.arguments)
            for path in written:
                path.mkdir(parents=True, exist_ok=True)
            return run(
                Request(
                    # What pytest would keep for its next run is gone with the guest.
                    command=(*command, "-p", "no:cacheprovider"),
                    kernel=os.path.abspath(found),
                    cwd=Path.cwd(),
                    env=environment(os.environ, [f"{_CHOSEN}=guest"], tty=sys.stdout.isatty()),
                    memory=args.mem,
                    seconds=args.timeout,
                    writable=tuple(written),
                )
            )
        case Place.NOWHERE:
            print("ipvs: FAILED: CI requires this lane" if required() else "ipvs: SKIPPED", flush=True)
            return 1 if required() else 0


def junit_directories(arguments: Sequence[str]) -> list[Path]:
    """The directories into which pytest is asked to write its reports."""
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, sign, value = argument.partition("=")
        if option in _JUNIT and (name := value if sign else following):
            found.append(Path(name).resolve().parent)
    return found
