"""Calling a plug-in: a program, its environment, JSON in and JSON out. Blocks: use a thread from a loop."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from netkit.cni.errors import CniError, Code, PluginFailed
from netkit.cni.request import Attachment, Command
from netkit.kernel import process
from netkit.kernel.errors import KernelError
from netkit.kernel.netns import Namespace

_SECONDS: Final = 120.0
_SBIN: Final = ("/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Call:
    """All but the program and its configuration. `arguments` becomes CNI_ARGS, `environment` is added as it is, `ns` is
    where the program runs (None: here).
    """

    command: Command
    attachment: Attachment
    netns: str
    path: tuple[str, ...]
    arguments: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    ns: Namespace | None = None


def find(kind: str, path: Sequence[str]) -> str:
    """The program of a plug-in. Raises CniError when there is none."""
    if not kind or "/" in kind:
        raise CniError(Code.INVALID_CONFIG, f"invalid plug-in type {kind!r}")
    for directory in path:
        program = Path(directory) / kind
        if program.is_file() and os.access(program, os.X_OK):
            return str(program)
    raise CniError(Code.IO_FAILURE, f'failed to find plugin "{kind}" in path [{" ".join(path)}]')


def ask(kind: str, call: Call, config: Mapping[str, Any]) -> Any:
    """What the plug-in prints, None when that is nothing. Raises PluginFailed with its own words."""
    try:
        return _ask(kind, call, config)
    except CniError as error:
        raise PluginFailed(kind, call.command, error) from error


def _ask(kind: str, call: Call, config: Mapping[str, Any]) -> Any:
    program = find(kind, call.path)
    try:
        done = process.run(
            [program], ns=call.ns, input=json.dumps(config).encode(), timeout=_SECONDS, env=_environment(call)
        )
    except KernelError as error:
        raise CniError(Code.IO_FAILURE, str(error)) from error
    stdout = done.stdout.decode(errors="replace").strip()
    if done.returncode:
        raise _refusal(stdout, done.stderr.decode(errors="replace").strip(), done.returncode)
    if not stdout:
        return None
    try:
        return json.loads(stdout)
    except ValueError as error:
        raise CniError(Code.UNDECODABLE, "what it printed is not JSON", str(error)) from error


def _environment(call: Call) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return {
        "PATH": os.pathsep.join([*path, *(part for part in _SBIN if part not in path)]),
        **call.environment,
        "CNI_COMMAND": call.command,
        "CNI_CONTAINERID": call.attachment.container,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.attachment.interface,
        "CNI_ARGS": call.arguments,
        "CNI_PATH": ":".join(call.path),
    }


def _refusal(stdout: str, stderr: str, returncode: int) -> CniError:
    """The error that the plug-in printed; else whatever it said."""
    try:
        told = json.loads(stdout)
        return CniError(int(told["code"]), str(told["msg"]), str(told.get("details") or ""))
    except (ValueError, KeyError, TypeError):
        said = " ".join(part for part in (stdout, stderr) if part) or f"exit status {returncode}"
        return CniError(Code.OURS, said)
