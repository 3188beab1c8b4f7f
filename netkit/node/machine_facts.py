"""Facts about the machine for a Node's status, read once at start."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """As `status.nodeInfo` names them."""

    kernel: str
    os_image: str
    architecture: str
    machine_id: str
    boot_id: str


def read_facts() -> MachineFacts:
    """The machine's facts; what a machine does not say is empty."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return MachineFacts(
        kernel=os.uname().release,
        os_image=release.get("PRETTY_NAME", "Linux"),
        architecture=_ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        machine_id=_line("/etc/machine-id"),
        boot_id=_line("/proc/sys/kernel/random/boot_id"),
    )


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""
