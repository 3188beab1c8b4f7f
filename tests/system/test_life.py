"""From nothing to nothing: what up makes, what it refuses, and that down leaves the machine as it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from support.cluster import NETKIT, Cluster, eventually
from support.host import host_network, left_overs, run


@pytest.fixture
def fresh(untouched: None, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that is not up; whatever the test leaves of it is taken down."""
    made = Cluster(f"l{uuid.uuid4().hex[:6]}", tmp_path)
    yield made
    made.netkit("down", "-p", made.name, check=False)


def refusal(cluster: Cluster, *arguments: str) -> str:
    """Standard error of an `up` that must fail with one line (and at most one hint), leaving nothing."""
    standing = left_overs()
    result = cluster.netkit("up", "-p", cluster.name, *arguments, check=False)
    assert result.returncode == 1, result.stdout
    lines = result.stderr.splitlines()
    assert 1 <= len(lines) <= 2, result.stderr
    assert lines[0].startswith("netkit: ")
    assert "Traceback" not in result.stderr
    assert left_overs() == standing
    return result.stderr


def test_the_machine_is_changed_by_one_veth_and_its_route_only(fresh: Cluster) -> None:
    before = host_network()
    fresh.up()
    during = host_network()
    facts = json.loads(Path(f"/var/lib/netkit/{fresh.name}/cluster.json").read_text())
    link = facts["host_link"]
    new_links = set(during.links) - set(before.links)
    assert set(before.links) <= set(during.links)
    assert len(new_links) == 1
    assert f" {link}@" in new_links.pop()
    assert all(f" {link} " in line for line in set(during.addresses) - set(before.addresses))
    assert all(f"dev {link} " in line + " " for line in set(during.routes) - set(before.routes))
    assert not any("fe80" in line for line in set(during.addresses) - set(before.addresses))
    assert during.rules == before.rules
    assert during.filters == before.filters
    new_sysctls = {path for path, value in during.sysctls.items() if before.sysctls.get(path) != value}
    assert all(f"/{link}/" in path for path in new_sysctls)
    fresh.down()
    assert host_network() == before


def test_the_kubeconfig_gets_a_context_and_loses_it_again(fresh: Cluster) -> None:
    other = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "other",
        "clusters": [{"name": "other", "cluster": {"server": "https://192.0.2.1:6443"}}],
        "users": [{"name": "other", "user": {"token": "secret"}}],
        "contexts": [{"name": "other", "context": {"cluster": "other", "user": "other"}}],
    }
    fresh.kubeconfig.write_text(yaml.safe_dump(other))
    fresh.up()
    config = yaml.safe_load(fresh.kubeconfig.read_text())
    assert config["current-context"] == f"netkit-{fresh.name}"
    assert {context["name"] for context in config["contexts"]} == {"other", f"netkit-{fresh.name}"}
    assert fresh.kubectl("get", "nodes", "-o", "name").splitlines() == [
        "node/node1",
        "node/node2",
        "node/node3",
    ]
    fresh.down()
    assert yaml.safe_load(fresh.kubeconfig.read_text()) == other


def test_a_kubeconfig_that_was_not_there_is_gone_afterwards(fresh: Cluster) -> None:
    fresh.up("--nodes", "1")
    assert fresh.kubeconfig.exists()
    fresh.down()
    assert not fresh.kubeconfig.exists()


def test_a_second_up_of_the_same_name_is_refused_and_changes_nothing(fresh: Cluster) -> None:
    fresh.up("--nodes", "1")
    standing = left_overs()
    result = fresh.netkit("up", "-p", fresh.name, check=False)
    assert result.returncode == 1
    assert f"cluster {fresh.name} is up already" in result.stderr
    assert left_overs() == standing
    assert fresh.status()["healthy"]


def test_two_clusters_side_by_side_do_not_meet(fresh: Cluster, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Cluster(f"m{uuid.uuid4().hex[:6]}", tmp_path / "second")
    fresh.up("--nodes", "1")
    try:
        second.up("--nodes", "2")
        assert fresh.status()["segment"] != second.status()["segment"]
        assert len(fresh.get("nodes")["items"]) == 1
        assert len(second.get("nodes")["items"]) == 2
        fresh.down()
        assert second.status()["healthy"]
        assert len(second.get("nodes")["items"]) == 2
    finally:
        second.down()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nodez": 1}, "nodez: unknown field"),
        ({"nodes": "many"}, "nodes: expected a whole number, got text"),
        ({"network": {"podSubnet": "10.96.0.0/16"}}, "overlaps network.serviceSubnet"),
    ],
)
def test_a_bad_file_is_refused(fresh: Cluster, tmp_path: Path, document: object, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(document))
    assert message in refusal(fresh, "--config", str(path))


def test_a_segment_the_machine_uses_already_is_refused(fresh: Cluster, tmp_path: Path) -> None:
    fresh.up("--nodes", "1")
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"network": {"segment": fresh.status()["segment"]}}))
    other = Cluster(f"o{uuid.uuid4().hex[:6]}", tmp_path)
    assert "overlaps" in refusal(other, "--config", str(path))


def test_a_port_in_use_is_refused(fresh: Cluster, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump({"api": {"port": port}}))
        assert f"port {port} of the loopback is in use" in refusal(fresh, "--config", str(path))


def test_without_root_it_says_so(fresh: Cluster) -> None:
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    if run(*nobody, "test", "-r", NETKIT, check=False).returncode != 0:
        pytest.skip("this checkout lies where only root may read it")
    result = run(*nobody, NETKIT, "up", "-p", fresh.name, check=False)
    assert result.returncode == 1
    assert "needs root" in result.stderr
    assert "Traceback" not in result.stderr


def _takes_sigint(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has come so far that SIGINT is not its death at once."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    return bool(int(fields["SigCgt"], 16) & 1 << (signal.SIGINT - 1))


def test_ctrl_c_during_up_removes_what_was_made(fresh: Cluster) -> None:
    standing = left_overs()
    for delay in (0.2, 0.5, 0.8):
        starting = subprocess.Popen(
            [NETKIT, "up", "-p", fresh.name],
            env=fresh.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        eventually("Python takes the signal", partial(_takes_sigint, starting))
        try:
            starting.wait(delay)
        except subprocess.TimeoutExpired:
            starting.send_signal(signal.SIGINT)
        _, error = starting.communicate(timeout=120)
        if starting.returncode == 0:
            fresh.down()
        else:
            assert starting.returncode == 130
            assert b"Traceback" not in error
        assert left_overs() == standing


def test_down_after_an_up_that_was_killed(fresh: Cluster) -> None:
    standing = left_overs()
    for delay in (0.3, 0.6, 0.8, 0.9, 1.0, 1.2):
        starting = subprocess.Popen(
            [NETKIT, "up", "-p", fresh.name],
            env=fresh.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            starting.wait(delay)
        except subprocess.TimeoutExpired:
            starting.kill()
        starting.wait()
        if os.path.exists(f"/var/lib/netkit/{fresh.name}"):
            fresh.down()
        assert left_overs() == standing


def test_down_of_nothing_says_so(fresh: Cluster) -> None:
    result = fresh.netkit("down", "-p", fresh.name, check=False)
    assert result.returncode == 1
    assert f"there is no cluster {fresh.name}" in result.stderr


def test_everything_acknowledged_is_there_after_the_control_plane_was_killed(fresh: Cluster) -> None:
    fresh.up("--nodes", "1")
    control = next(p["pid"] for p in fresh.status()["processes"] if p["label"] == "control-plane")
    manifest = r'printf "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m$i}\n"'
    create = f'i=0; while i=$((i+1)); do {manifest} | "$@" create -o name -f - || exit; done'
    writer = subprocess.Popen(
        ["sh", "-c", create, "sh", NETKIT, "kubectl", "-p", fresh.name, "--"],
        env=fresh.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(5)]
    os.kill(control, signal.SIGKILL)
    os.killpg(writer.pid, signal.SIGKILL)
    acknowledged += [line.strip() for line in writer.communicate()[0].splitlines()]
    eventually(
        "the API is back", lambda: fresh.kubectl("get", "--raw", "/readyz", check=False).startswith("ok")
    )
    stored = set(fresh.kubectl("get", "configmaps", "-o", "name").split())
    assert set(filter(None, acknowledged)) <= stored


def test_the_toolkit_is_quick_to_answer_help() -> None:
    begin = time.perf_counter()
    text = run(NETKIT, "--help").stdout
    for command in ("up", "status", "down", "kubectl", "kubeconfig", "exec", "doctor", "version", "image"):
        assert command in text
    assert time.perf_counter() - begin < 20
