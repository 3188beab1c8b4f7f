"""The README's commands, run as a reader would run them."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from pathlib import Path

from support.cluster import NETKIT, ROOT, kubectl_program
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


def test_the_first_session_of_the_readme_works(untouched: None, tmp_path: Path) -> None:
    """Every command of the session ends well, in order; addresses differ where the segment does."""
    text = (ROOT / "README.md").read_text().partition("```console\n")[2].partition("```")[0]
    commands = [
        line.removeprefix("$ ").partition("  #")[0] for line in text.splitlines() if line.startswith("$ ")
    ]
    assert commands[0] == "sudo netkit up"
    assert commands[-1] == "sudo netkit down"
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "netkit").symlink_to(NETKIT)
    (programs / "kubectl").symlink_to(kubectl_program() or "")
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "config"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    segment = "172.18."
    try:
        for command in commands:
            words = shlex.split(command.removeprefix("sudo ").replace("172.18.", segment))
            output = run(*words, cwd=str(ROOT), env=environment, timeout=120).stdout
            if words == ["netkit", "up"]:
                found = re.search(r"outside client on (172\.\d+\.)", output)
                assert found, output
                segment = found.group(1)
            if "curl" in words:
                assert "Hello,  hello-" in output
    finally:
        run(NETKIT, "down", env=environment, check=False)
