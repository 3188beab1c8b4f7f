"""Whole clusters: time to a Service that answers, time to nothing, memory, pods per second.

sudo .venv/bin/python tests/bench/cluster.py [RUNS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.report import Figure, report, timed
from support.cluster import NETKIT, Cluster
from support.host import run

from netkit.cluster.profile import Profile

MANIFEST = Path(__file__).parents[1] / "system" / "manifests" / "hostname.yaml"
MANY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: c, image: "registry.k8s.io/pause:3.10"}]}
"""


def answers(cluster: Cluster) -> None:
    """Return when the Service of the manifest answers on node1."""
    cluster.kubectl("apply", "-f", str(MANIFEST))
    address = cluster.get("service", "hostname-svc-clusterip")["spec"]["clusterIP"]
    # One process on the node asks until it is answered: a process per try would be measured otherwise.
    ask = f"until curl -s -m 1 -o /dev/null http://{address}:8080; do :; done"
    cluster.on("node1", "sh", "-c", ask)
    cluster.rollout("deployment/hostname-deployment")


def memory(cluster: Cluster) -> float:
    """Megabytes (PSS) of all processes of the cluster."""
    total = 0
    for process in cluster.status()["processes"]:
        for line in Path(f"/proc/{process['pid']}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def many_pods(cluster: Cluster, count: int) -> float:
    """Pods per second from apply to all Ready."""
    begin = time.perf_counter()
    cluster.kubectl("create", "-f", "-", stdin=MANY.replace("COUNT", str(count)))
    cluster.kubectl(
        "wait", "--for=jsonpath={.status.readyReplicas}=" + str(count), "deployment/many", "--timeout=120s"
    )
    return count / (time.perf_counter() - begin)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as directory:
        cluster = Cluster("bench", Path(directory))
        imports = [timed(lambda: run(NETKIT, "version")) for _ in range(runs)]
        up, ready, gone, pss, rate = [], [], [], [], []
        steps: dict[str, list[float]] = {}
        for _ in range(runs):
            begin = time.perf_counter()
            facts = json.loads(cluster.up("-o", "json").stdout)
            up.append(time.perf_counter() - begin)
            for step in facts["steps"]:
                steps.setdefault(step["text"], []).append(step["seconds"])
            answers(cluster)
            ready.append(time.perf_counter() - begin)
            cluster.kubectl("scale", "deployment/hostname-deployment", "--replicas=10")
            cluster.rollout("deployment/hostname-deployment")
            pss.append(memory(cluster))
            rate.append(many_pods(cluster, 100))
            gone.append(timed(cluster.down))
        assert Profile("bench").exists is False
    start = sorted(imports)[len(imports) // 2]
    figures = [
        Figure("netkit version (start of Python and the command)", "s", tuple(imports)),
        Figure("up: three nodes Ready", "s", tuple(up), start, "netkit version"),
        *(Figure(f"  {text}", "s", tuple(values)) for text, values in steps.items()),
        Figure(
            "up + Deployment of 3 answers at its ClusterIP",
            "s",
            tuple(ready),
            start,
            "netkit version",
            "1.5, 3 at most",
        ),
        Figure("down, with 110 pods", "s", tuple(gone), start, "netkit version", "under 1"),
        Figure("memory (PSS), 3 nodes, 10 pods", "MB", tuple(pss), aim="under 150"),
        Figure("100 pods from apply to Ready", "pods/s", tuple(rate), aim="50 or more"),
    ]
    report("cluster", figures)


if __name__ == "__main__":
    main()
