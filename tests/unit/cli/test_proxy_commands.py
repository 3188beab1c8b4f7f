"""`netkit proxy` takes its flags as kube-proxy does, and leaves subcommands alone."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run as run_program

import pytest
import typer
from typer.testing import CliRunner

from netkit.cli import proxy_commands
from netkit.cli.main import app
from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.flag_table import FLAGS


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["proxy", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["--cleanup"], ["--cleanup", "true"]),
        (["--cleanup=false"], ["--cleanup", "false"]),
        (["--cleanup", "explain"], ["--cleanup", "true", "explain"]),
        (["-v=4"], ["--v", "4"]),
        (["-v", "4", "--v=5"], ["--v", "4", "--v", "5"]),
        (["--proxy-mode", "ipvs", "--profiling"], ["--proxy-mode", "ipvs", "--profiling", "true"]),
        (["--metrics-bind-address="], ["--metrics-bind-address", ""]),
        (["--cluster-cidr", "--profiling"], ["--cluster-cidr", "--profiling"]),
        (["--no-such-flag=1", "-h"], ["--no-such-flag=1", "-h"]),
        (["explain", "--profiling", "-v=4"], ["explain", "--profiling", "-v=4"]),
        (["--", "--profiling"], ["--", "--profiling"]),
        (["--config"], ["--config"]),
    ],
)
def test_values_go_behind_their_flags(given: list[str], made: list[str]) -> None:
    assert proxy_commands.with_values(given) == made


def test_help_names_every_flag_and_starts_nothing() -> None:
    text = invoke("--help")
    for flag in FLAGS:
        assert f"--{flag.name}" in text


def test_bare_is_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "--proxy-mode" in invoke()


def test_version() -> None:
    assert invoke("--version").startswith("Kubernetes v1.")


def test_the_configuration_is_written(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    invoke("--write-config-to", str(file), "--proxy-mode=nftables", "-v=3", "--nodeport-addresses", "10.0.0.0/8",
           "--nodeport-addresses=fd00::/48")  # fmt: skip
    text = file.read_text()
    assert "mode: nftables\n" in text
    assert "nodePortAddresses:\n- 10.0.0.0/8\n- fd00::/48\n" in text
    assert "verbosity: 3\n" in text
    other = tmp_path / "other.yaml"
    invoke("--config", str(file), "--write-config-to", str(other))
    assert other.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--proxy-mode", "winkernel"],
            "failed validate: KubeProxyConfiguration.Mode.ProxyMode: Invalid value",
        ),
        (["--bind-address", "x"], 'invalid argument "x" for "--bind-address" flag'),
        (["--feature-gates", "A=b"], "invalid value of A: b, err: strconv.ParseBool"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message.replace("(", r"\(")):
        invoke(*arguments)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(Exception, match="failed complete: open /not/there: no such file or directory"):
        invoke("--config", "/not/there")


def test_an_unknown_flag_is_refused() -> None:
    result = CliRunner().invoke(app, ["proxy", "--no-such-flag"])
    assert result.exit_code == 2
    assert "no-such-flag" in result.output


def test_a_subcommand_does_not_start_a_proxy() -> None:
    group = typer.Typer()
    said: list[str] = []

    def look(flag: bool = False) -> None:
        said.append(f"looked {flag}")

    proxy_commands.register(group)
    before = list(proxy_commands.proxy_app.registered_commands)
    proxy_commands.proxy_app.command()(look)
    try:
        result = CliRunner().invoke(group, ["proxy", "look", "--flag"])
    finally:
        proxy_commands.proxy_app.registered_commands = before
    assert result.exit_code == 0, result.output
    assert said == ["looked True"]


def test_the_commands_load_without_the_proxy() -> None:
    code = (
        "import sys, netkit.cli.main; "
        "sys.exit(any(name.startswith(('yaml', 'controlplane', 'asyncio', 'netkit.kernel')) for name in sys.modules))"
    )
    assert run_program([sys.executable, "-c", code], check=False).returncode == 0
