"""What a test may compare of the machine it runs on: its network, and what a cluster must not leave behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


def run(
    *argv: str, check: bool = True, timeout: float = 180, **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a program, return its text output; its stderr is in the failure's message."""
    result = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **options)  # type: ignore[call-overload]
    if check and result.returncode:
        raise AssertionError(f"{' '.join(argv)} -> {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


@dataclass(frozen=True)
class HostNetwork:
    """The machine's own network, everything a user could notice. Counters and ages are left out."""

    links: tuple[str, ...]
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    rules: tuple[str, ...]
    neighbours: tuple[str, ...]
    filters: dict[str, str] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)


def host_network() -> HostNetwork:
    """The machine's network now."""
    filters = {}
    for command in (
        "iptables-legacy-save",
        "ip6tables-legacy-save",
        "iptables-nft-save",
        "ip6tables-nft-save",
    ):
        if shutil.which(command):
            text = run(command).stdout
            filters[command] = "\n".join(
                re.sub(r"\[\d+:\d+\]", "", line) for line in text.splitlines() if not line.startswith("#")
            )
    if shutil.which("nft"):
        filters["nft"] = run("nft", "-s", "list", "ruleset").stdout
    return HostNetwork(
        links=_lines("ip", "-o", "link", "show"),
        addresses=tuple(
            re.sub(r"(valid|preferred)_lft \S+", "", line) for line in _lines("ip", "-o", "addr", "show")
        ),
        routes=_lines("ip", "route", "show", "table", "all")
        + _lines("ip", "-6", "route", "show", "table", "all"),
        rules=_lines("ip", "rule") + _lines("ip", "-6", "rule"),
        neighbours=tuple(line for line in _lines("ip", "neigh", "show", "nud", "permanent")),
        filters=filters,
        sysctls=_sysctls(),
    )


def _lines(*argv: str) -> tuple[str, ...]:
    return tuple(sorted(line.strip() for line in run(*argv).stdout.splitlines()))


def _sysctls() -> dict[str, str]:
    """Everything readable below /proc/sys/net, except counters."""
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        if path.name in {"nf_conntrack_count", "stat"} or "flush" in path.name or not path.is_file():
            continue
        try:
            found[str(path)] = path.read_text()
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class LeftOvers:
    """What could be left of a cluster: namespaces, processes of ours, mounts, files outside the project."""

    namespaces: frozenset[str]
    processes: frozenset[str]
    mounts: frozenset[str]
    files: frozenset[str]


_WATCHED = ("/run", "/var/lib", "/etc", "/root")
_SHARED, _GUESTS = "/tmp", "kube-netkit-uml."
"""Everybody writes here: only names that are ours count, and not those of guests, which run beside these tests."""


def left_overs() -> LeftOvers:
    """What stands now; compare with an earlier value."""
    names = Path("/run/netns")
    return LeftOvers(
        namespaces=frozenset(os.listdir(names)) if names.is_dir() else frozenset(),
        processes=frozenset(_our_processes()),
        mounts=frozenset(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        files=frozenset(
            [f"{top}/{name}" for top in _WATCHED if os.path.isdir(top) for name in os.listdir(top)]
            + [
                f"{_SHARED}/{name}"
                for name in os.listdir(_SHARED)
                if "netkit" in name and not name.startswith(_GUESTS)
            ]
        ),
    )


def _our_processes() -> list[str]:
    """Processes whose name says they are parts of a cluster (`nk:...`), by pid and name."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name = Path(f"/proc/{entry}/comm").read_text().strip()
                state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name.startswith("nk:") and state != "Z":
                found.append(f"{entry} {name}")
    return found


def as_json(text: str) -> object:
    return json.loads(text)
