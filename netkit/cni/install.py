"""Writing the plug-in's program into a directory where runtimes look for plug-ins."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import netkit
from netkit.cni.request import TYPE


def install(directory: Path) -> Path:
    """Write the program `netkit-cni`, replacing one that is there: its path. Raises OSError.

    It runs this installation's code with this interpreter, whatever the environment of the caller is.
    """
    root = Path(netkit.__file__).resolve().parent.parent
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from netkit.cni.main import run; run()"
    text = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -c {shlex.quote(code)}\n"
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    program = directory / TYPE
    fresh = directory / f".{TYPE}.new"
    fresh.write_text(text)
    fresh.chmod(0o755)
    os.replace(fresh, program)
    return program
