"""kubectl top and what the kubelets tell of their containers."""

from __future__ import annotations

import json
import re

from support.cluster import Cluster, eventually
from support.space import Space
from support.workloads import busybox


def test_top(lab: Space) -> None:
    lab.apply(busybox("busy", "while :; do :; done"))
    lab.apply(busybox("idle", "sleep infinity"))
    lab.kubectl("run", "web", "--image=nginx")
    for name in ("busy", "idle", "web"):
        lab.ready(name)

    def row(name: str) -> tuple[int, int] | None:
        shown = lab.kubectl("top", "pods", "--no-headers", check=False)
        found = re.search(rf"^{name} +(\d+)m +(\d+)Mi", shown, re.MULTILINE)
        return (int(found[1]), int(found[2])) if found else None

    cpu, memory = eventually("busy is measured", lambda: row("busy"))
    assert 10 < cpu < 1100  # however many others want the machine's cores
    assert 0 < memory < 200
    idle = eventually("idle is measured", lambda: row("idle"))
    assert idle[0] < cpu
    web = eventually("web is measured", lambda: row("web"))
    assert web[1] > 10
    shown = lab.kubectl("top", "pods", "--containers", "--sort-by=cpu", "--no-headers").splitlines()
    assert shown[0].split()[:2] == ["busy", "main"]
    assert lab.kubectl("top", "pods", "-l", "app=idle", "--no-headers").split()[0] == "idle"

    def measured() -> list[str]:
        lines = lab.kubectl("top", "nodes", "--no-headers", check=False).splitlines()
        return lines if len(lines) == 3 else []

    nodes = eventually("all nodes are measured", measured)
    where = lab.get("pod", "busy")["spec"]["nodeName"]
    assert where in {line.split()[0] for line in nodes}
    # Told at one moment: a node has used what its pods have, and more.
    summary = json.loads(lab.kubectl("get", "--raw", f"/api/v1/nodes/{where}/proxy/stats/summary"))
    used = {pod["podRef"]["name"]: pod["cpu"]["usageCoreNanoSeconds"] for pod in summary["pods"]}
    assert used["busy"] > 10_000_000
    assert summary["node"]["cpu"]["usageCoreNanoSeconds"] > sum(used.values())


def test_what_is_not_measured(lab: Space) -> None:
    lab.apply(busybox("done", "true", policy="Never"))
    lab.reaches("done", "Succeeded")
    raw = f"/apis/metrics.k8s.io/v1beta1/namespaces/{lab.name}/pods/done"
    refused = lab.kubectl("get", "--raw", raw, check=False)
    assert f'podmetrics.metrics.k8s.io "{lab.name}/done" not found' in refused
    assert 'pods "nobody" not found' in lab.kubectl("top", "pod", "nobody", check=False)
    service = lab.kubectl("get", "apiservice", "v1beta1.metrics.k8s.io", "--no-headers").split()
    assert service[1:3] == ["Local", "True"]


def test_kubelets_through_the_nodes_proxy(lab: Space) -> None:
    lab.apply(busybox("app", "sleep infinity"))
    node = lab.ready("app")["spec"]["nodeName"]

    def raw(path: str) -> str:
        return lab.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/{path}")

    assert raw("healthz") == "ok"
    running = {pod["metadata"]["name"]: pod for pod in json.loads(raw("runningpods/"))["items"]}
    assert [c["name"] for c in running["app"]["spec"]["containers"]] == ["main"]
    assert "app" in {pod["metadata"]["name"] for pod in json.loads(raw("pods"))["items"]}
    assert json.loads(raw("configz"))["kubeletconfig"]["port"] == 10250
    assert f'kubelet_node_name{{node="{node}"}} 1' in raw("metrics")
    label = f'{{container="main",namespace="{lab.name}",pod="app"}}'
    assert f"container_cpu_usage_seconds_total{label}" in raw("metrics/resource")
    assert f'namespace="{lab.name}",pod="app"}}' in raw("metrics/cadvisor")
    summary = json.loads(raw("stats/summary"))
    assert summary["node"]["nodeName"] == node
    assert "app" in {pod["podRef"]["name"] for pod in summary["pods"]}


def test_status_and_exec_of_the_toolkit(cluster: Cluster) -> None:
    shown = json.loads(cluster.netkit("status", "-p", cluster.name, "-o", "json").stdout)
    known = cluster.status()
    assert shown["healthy"]
    assert {key: shown[key] for key in ("name", "segment", "machines")} == {
        key: known[key] for key in ("name", "segment", "machines")
    }
    assert {p["label"] for p in shown["processes"]} == {p["label"] for p in known["processes"]}
    script = "hostname; ls /sys/class/net; exit 3"
    ran = cluster.netkit("exec", "-p", cluster.name, "node2", "--", "sh", "-c", script, check=False)
    assert ran.returncode == 3
    assert ran.stdout.split()[0] == "node2"
    assert "eth0" in ran.stdout.split()
    refused = cluster.netkit("exec", "-p", cluster.name, "node9", "--", "true", check=False)
    assert refused.returncode == 1
    assert f"cluster {cluster.name} has no machine node9" in refused.stderr
