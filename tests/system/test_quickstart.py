"""The README's first command, run as a reader would run it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from support.cluster import ROOT
from support.host import run


def test_quickstart_shows_a_service_and_leaves_nothing(untouched: None, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "config"),
        "NO_COLOR": "1",
    }
    name = f"q{uuid.uuid4().hex[:6]}"
    output = run(str(ROOT / "labs" / "quickstart"), "--once", "-p", name, env=environment, timeout=300).stdout
    for node in ("node1", "node2", "node3"):
        assert node in output
    assert output.count("http://10.") >= 3, output
    assert 'deployment "hello" successfully rolled out' in output
    assert f"Cluster {name} is gone" in output
    assert not (tmp_path / "config").exists()
