"""The Vagrantfile, judged by Vagrant itself. No machine is started and no provider is needed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("vagrant") is None, reason="vagrant is not installed (labs/install --tests installs it)"
)

VBOXMANAGE = """#!/bin/sh
case "$1" in --version|-v) echo 7.0.20r163906;; list) ;; *) exit 1;; esac
"""


def validate(tmp_path: Path, vagrantfile: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`vagrant validate` with a VBoxManage that knows its version, so that the provider's options are checked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "VBoxManage").write_text(VBOXMANAGE)
    (programs / "VBoxManage").chmod(0o755)
    project = tmp_path / "project"
    project.mkdir()
    (project / "Vagrantfile").write_text(vagrantfile)
    return subprocess.run(
        ["vagrant", "validate"],
        cwd=project,
        env={
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "VAGRANT_HOME": str(tmp_path / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_DEFAULT_PROVIDER": "virtualbox",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_vagrantfile_is_valid(tmp_path: Path) -> None:
    result = validate(tmp_path, (ROOT / "Vagrantfile").read_text())
    assert result.returncode == 0, result.stderr
    assert "validated successfully" in result.stdout


def test_validation_sees_a_misspelt_provider_option(tmp_path: Path) -> None:
    broken = (ROOT / "Vagrantfile").read_text().replace("vb.linked_clone", "vb.linked_clonez")
    assert validate(tmp_path, broken).returncode != 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("LAB_CPUS", "many", "LAB_CPUS must be a number"),
        ("LAB_MEMORY", "64", "LAB_MEMORY must be megabytes"),
        ("LAB_IP", "10.0.0.5", "LAB_IP must lie in 192.168.56.0/21"),
    ],
)
def test_a_bad_knob_is_named(tmp_path: Path, name: str, value: str, message: str) -> None:
    result = validate(tmp_path, (ROOT / "Vagrantfile").read_text(), **{name: value})
    assert result.returncode != 0
    assert message in result.stderr + result.stdout
