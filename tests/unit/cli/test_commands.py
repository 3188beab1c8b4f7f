"""The command line without a cluster: help, JSON, one line for every mistake. Needs no root."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from netkit.cli import main, script
from netkit.cli.output import table
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def netkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the console script in this process, with a state directory of its own."""
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("NETKIT_VERBOSE", raising=False)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["netkit", *arguments])
        with pytest.raises(SystemExit) as leaving:
            main.run()
        captured = capfd.readouterr()
        code = leaving.value.code
        return Outcome(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return run


@pytest.fixture
def lab(netkit: Run, tmp_path: Path) -> Profile:
    """A cluster that other commands take for existing, without any process or namespace."""
    profile = Profile("lab", tmp_path / "state")
    profile.directory.mkdir(parents=True)
    profile.write_facts(
        ClusterFacts(
            name="lab",
            server="https://127.0.0.1:1",
            segment="172.18.0.0/16",
            pod_subnet="10.244.0.0/16",
            service_subnet="10.96.0.0/12",
            host_link="nk-lab",
            host_address="172.18.0.1",
            kubeconfig=str(tmp_path / "kubeconfig"),
            kubeconfig_created=False,
            previous_context="",
            machines=(MachineFacts("node1", "node", "lab.node1", "172.18.0.11"),),
        )
    )
    return profile


COMMANDS = ["up", "status", "down", "exec", "kubectl", "kubeconfig", "doctor", "version", "image"]


@pytest.mark.parametrize(
    "command",
    [
        (),
        *((name,) for name in COMMANDS),
        *(("image", name) for name in ("list", "add", "rm")),
        ("api", "requests"),
        *(("network", name) for name in ("mode", "show", "check")),
    ],
)
def test_every_command_explains_itself(netkit: Run, command: Sequence[str]) -> None:
    outcome = netkit(*command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith("Usage: netkit")


def test_version_as_json(netkit: Run) -> None:
    value = json.loads(netkit("version", "-o", "json").out)
    assert value["kubernetes"].startswith("v1.32")


@pytest.mark.parametrize(
    "command", [("status",), ("kubeconfig",), ("image", "list"), ("kubectl",), ("exec", "node1")]
)
def test_without_a_cluster_it_says_how_to_make_one(netkit: Run, command: Sequence[str]) -> None:
    outcome = netkit(*command)
    assert outcome == Outcome(1, "", "netkit: there is no cluster lab\n  make one with: netkit up -p lab\n")


def test_an_unknown_machine_is_named_with_those_there_are(netkit: Run, lab: Profile) -> None:
    outcome = netkit("exec", "node9", "--", "ip", "addr")
    assert outcome == Outcome(1, "", "netkit: cluster lab has no machine node9\n  there are: node1\n")


def test_an_interrupted_start_is_told_apart(netkit: Run, lab: Profile) -> None:
    (lab.directory / "cluster.json").unlink()
    outcome = netkit("status")
    assert outcome.code == 1
    assert "its start was interrupted" in outcome.err
    assert "netkit down -p lab" in outcome.err


def test_a_cluster_of_another_user_is_no_defect(
    netkit: Run, lab: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    expected = "netkit: cluster lab belongs to another user\n  run it with sudo\n"
    assert netkit("status") == Outcome(1, "", expected)


def test_status_of_a_dead_cluster_names_the_problems(netkit: Run, lab: Profile) -> None:
    (lab.pki).mkdir()
    from controlplane.apiserver.pki import CertificateAuthority

    CertificateAuthority.load_or_create(lab.pki).ensure("admin", "kubernetes-admin", ["system:masters"])
    outcome = netkit("status", "-o", "json")
    assert outcome.code == 1
    value = json.loads(outcome.out)
    assert value["healthy"] is False
    assert value["problems"][0].startswith("the API at https://127.0.0.1:1 does not answer")
    assert "namespace lab.node1 is missing" in value["problems"]


def test_images_are_added_listed_and_removed(netkit: Run, lab: Profile) -> None:
    added = netkit("image", "add", "shop/web:1.*", "--builtin", "nginx", "--port", "8080")
    assert added.code == 0
    entries = json.loads(netkit("image", "list", "-o", "json").out)
    assert entries[0] == {"match": "shop/web:1.*", "builtin": "nginx", "ports": [8080], "own": True}
    assert any(entry["match"] == "nginx" and not entry["own"] for entry in entries)
    assert "shop/web:1.*" in netkit("image", "list").out
    assert netkit("image", "rm", "shop/web:1.*").code == 0
    assert "shop/web" not in netkit("image", "list").out
    gone = netkit("image", "rm", "shop/web:1.*")
    assert gone.code == 1
    assert "has no entry of its own" in gone.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x",), "exactly one of builtin, program and root is required"),
        (("x", "--builtin", "nonsense"), 'unknown builtin "nonsense"'),
        (("x", "--root", "/no/such/place"), "/no/such/place is not a directory"),
        (("x", "--builtin", "nginx", "--port", "99999"), "99999 is not a port"),
        (("x", "--program", "--env", "NAME"), "--env: expected NAME=VALUE"),
    ],
)
def test_a_wrong_image_is_refused_with_one_line(
    netkit: Run, lab: Profile, arguments: Sequence[str], message: str
) -> None:
    outcome = netkit("image", "add", *arguments)
    assert outcome.code == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert not lab.images.exists()


def test_a_bad_configuration_is_refused_before_root_is_asked_for(netkit: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("nodes: none\n")
    outcome = netkit("up", "--config", str(path))
    assert outcome == Outcome(1, "", "netkit: nodes: expected a whole number, got text\n")
    assert not (tmp_path / "state").exists()


def test_a_defect_is_one_line_and_the_chain_on_request(
    netkit: Run, lab: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lab.directory / "cluster.json").write_text("{")
    outcome = netkit("status")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "netkit -v" in outcome.err
    monkeypatch.setenv("NETKIT_VERBOSE", "1")
    assert "Traceback" in netkit("status").err


def test_tables_have_no_trailing_spaces() -> None:
    assert table(["A", "LONGER"], [("xx", ""), ("y", "z")]) == "A    LONGER\nxx\ny    z"


def test_an_interrupt_while_the_commands_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "netkit.cli.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "netkit.cli.main")
    monkeypatch.delattr("netkit.cli.main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as leaving:
        script.run()
    assert leaving.value.code == 130
    assert capfd.readouterr().err == "netkit: interrupted\n"
