"""The program `netkit-cni`: environment and standard input in, JSON out, exit status 0 or 1.

Imports little, because it is started for every container that comes or goes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from netkit.cni.errors import CniError, Code
from netkit.cni.request import Command, command_of, request, version_of
from netkit.kernel.errors import KernelError
from netkit.podnet.pod import SandboxFailed


def run() -> None:
    """Answer the call this process was started for."""
    code, printed = respond(os.environ, "" if sys.stdin.isatty() else sys.stdin.read())
    if printed is not None:
        print(json.dumps(printed, indent=4))
    sys.exit(code)


def respond(environment: Mapping[str, str], stdin: str) -> tuple[int, dict[str, Any] | None]:
    """Exit status, and what to print."""
    from netkit.cni import plugin

    try:
        if command_of(environment) is Command.VERSION:
            return 0, plugin.versions()
        return 0, plugin.answer(request(environment, stdin))
    except CniError as error:
        return 1, error.as_json(version_of(stdin))
    except SandboxFailed as error:
        return 1, CniError(Code.OURS, str(error)).as_json(version_of(stdin))
    except KernelError as error:
        code = Code.IO_FAILURE if error.is_not_found else Code.OURS
        return 1, CniError(code, str(error), error.hint).as_json(version_of(stdin))


if __name__ == "__main__":
    run()
