"""Whole clusters whose pods hang on cables of their own, and whose pods are made by plug-ins of others."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml
from support.cluster import ROOT, Cluster, eventually
from support.cni import debian_plugins
from support.space import Space, space

WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx, ports: [{containerPort: 80, hostPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: near}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx}]
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: nginx}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
NETWORKS: dict[str, dict[str, Any]] = {
    "ptp": {"attach": "ptp"},
    "external": {
        "mode": "external", "cniConf": str(ROOT / "labs" / "cni" / "bridge.conflist"), "nodeRoutes": True,
    },
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        "ptp",
        pytest.param(
            "external",
            marks=pytest.mark.skipif(not debian_plugins(), reason="needs containernetworking-plugins"),
        ),
    ],
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(kind: str, untouched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("home")
    (home / "config.yaml").write_text(yaml.safe_dump({"nodes": 2, "network": NETWORKS[kind]}))
    made = Cluster(f"t{uuid.uuid4().hex[:6]}", home)
    made.up("--config", str(home / "config.yaml"))
    try:
        yield made
    finally:
        made.down()


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[Space]:
    with space(cluster) as made:
        made.apply(WEB)
        for name in ("web", "near", "far"):
            made.ready(name)
        yield made


def answers(cluster: Cluster, netns: str, target: str) -> bool:
    """Whether the web server answers at the target, asked from the namespace `<cluster>.<netns>`."""
    url = f"http://{target}/"
    return (
        cluster.on(netns, "curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url, check=False)
        == "200"
    )


def inside(lab: Space, name: str) -> str:
    return f"{lab.name}.{name}.{lab.get('pod', name)['metadata']['uid'][:6]}"


def network(cluster: Cluster, *arguments: str, code: int = 0) -> Any:
    result = cluster.netkit("network", *arguments, "-p", cluster.name, "-o", "json", check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return json.loads(result.stdout)


def test_services_and_host_ports_work(cluster: Cluster, lab: Space) -> None:
    address = lab.get("service", "web")["spec"]["clusterIP"]
    web = lab.get("pod", "web")["status"]
    eventually("the Service answers", lambda: answers(cluster, "node2", address))
    for name in ("web", "near", "far"):
        for target in (f"{address}:80", f"{web['podIP']}:80", f"{web['hostIP']}:8080"):
            assert answers(cluster, inside(lab, name), target), (name, target)
    for machine, target in (("client", web["hostIP"]), ("node1", "127.0.0.1"), ("node2", web["hostIP"])):
        assert answers(cluster, machine, f"{target}:8080"), machine
    lab.kubectl("delete", "pod", "web", "--now")
    assert not answers(cluster, "node2", f"{web['hostIP']}:8080")
    assert "CNI-DN" not in cluster.on("node1", "iptables-legacy-save")


def test_an_agent_that_is_killed_adopts_its_pods(cluster: Cluster, lab: Space) -> None:
    host = lab.get("pod", "web")["status"]["hostIP"]
    links = cluster.on("node1", "ip", "-o", "link")
    for process in cluster.status()["processes"]:
        if process["label"] == "agent-node1":
            with suppress(ProcessLookupError):
                os.kill(process["pid"], signal.SIGKILL)
    lab.kubectl("delete", "pod", "near", "--now")
    assert answers(cluster, "client", f"{host}:8080")
    left = [line.split()[1] for line in cluster.on("node1", "ip", "-o", "link").splitlines()]
    before = [line.split()[1] for line in links.splitlines()]
    assert len(set(before) - set(left)) == 1


def test_the_views_know_it(cluster: Cluster, lab: Space, kind: str) -> None:
    # Debian's portmap wants rules of IPv6 for host ports when it checks.
    lab.kubectl("delete", "pod", "web", "--now")
    assert network(cluster, "check")["same"] is True
    (view,) = network(cluster, "show", "--node", "node2")
    far = lab.get("pod", "far")["status"]["podIP"]
    entries = {(entry["kind"], entry["key"]): entry["value"] for entry in view["entries"]}
    purposes = [entry["purpose"] for entry in view["entries"]]
    assert all(purposes)
    if kind == "ptp":
        assert view["attach"] == "ptp"
        assert entries["route", f"{far}/32"].startswith("dev veth")
        assert "cni0" not in cluster.on("node2", "ip", "link")
        return
    assert (view["mode"], view["attach"]) == ("external (node routes)", "bridge, portmap")
    assert f"pod {lab.name}/far, by bridge and portmap" in purposes
    refused = cluster.netkit("network", "mode", "native", "-p", cluster.name, check=False)
    assert refused.returncode == 1
    assert "cannot change from external to native" in refused.stderr
    (pod,) = [key for wanted, key in entries if wanted == "pod"]
    cluster.on("node2", "ip", "-n", pod, "address", "flush", "dev", "eth0")
    (_, node2) = network(cluster, "check", code=1)["nodes"]
    assert {entry["key"] for entry in node2["entries"]} == {pod}
    assert any('plugin type="bridge" failed (check)' in entry["purpose"] for entry in node2["entries"])


def test_a_pod_that_gets_no_network_is_told_why(cluster: Cluster) -> None:
    with space(cluster) as made:
        made.apply(
            WEB.replace("name: web,", 'name: web, annotations: {kubernetes.io/ingress-bandwidth: "fast"},')
        )
        eventually(
            "the refusal is told",
            lambda: [
                event
                for event in made.items("events")
                if event["reason"] == "FailedCreatePodSandBox" and "ingress-bandwidth" in event["message"]
            ],
        )
