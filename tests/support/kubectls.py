"""Every kubectl there is on the machine, by its minor version."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from support.host import run

_FOLDER = Path("/usr/lib/google-cloud-sdk/bin")


@functools.cache
def kubectls() -> Mapping[int, str]:
    """Minor version -> program: Google's set, the one on the PATH, and those `NETKIT_TEST_KUBECTLS` lists."""
    candidates = [str(path) for path in _FOLDER.glob("kubectl.1.*")] if _FOLDER.is_dir() else []
    candidates += os.environ.get("NETKIT_TEST_KUBECTLS", "").split(":")
    found: dict[int, str] = {}
    # The PATH comes last: it may hold a dispatcher that says of itself whatever it dispatches to.
    for program in filter(None, [*candidates, shutil.which("kubectl")]):
        answer = run(program, "version", "--client", "-o", "json", check=False)
        if answer.returncode == 0:
            minor = json.loads(answer.stdout)["clientVersion"]["minor"].rstrip("+")
            found.setdefault(int(minor), program)
    return dict(sorted(found.items()))
