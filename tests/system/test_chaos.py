"""kill -9 of any part at random moments: Services keep answering, everything converges, nothing is lost or left."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.cluster import Cluster, eventually

from netkit.kernel.process import start_time

MANIFEST = Path(__file__).parent / "manifests" / "hostname.yaml"
KILLS = 50


class Asker:
    """Asks the ClusterIP again and again from inside one node's namespace and keeps each answer's time."""

    def __init__(self, cluster: Cluster, machine: str, url: str) -> None:
        self._cluster, self._machine, self._url = cluster, machine, url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.failures: list[tuple[float, str]] = []
        self.answers = 0

    def _run(self) -> None:
        # One shell on the machine asks twenty times and prints curl's status of each: fewer processes to start.
        ask = f"for i in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 2 -o /dev/null {self._url}; echo $?; done"
        while not self._stop.is_set():
            for status in self._cluster.on(self._machine, "sh", "-c", ask).split():
                if status == "0":
                    self.answers += 1
                else:
                    self.failures.append((time.monotonic(), status))

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def test_killed_parts_come_back_and_the_data_path_keeps_answering(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(MANIFEST))
    cluster.rollout("deployment/hostname-deployment")
    address = cluster.get("service", "hostname-svc-clusterip")["spec"]["clusterIP"]
    eventually("the Service answers", lambda: cluster.curl("node1", f"http://{address}:8080"))
    choice = random.Random(7)
    made: list[str] = []
    labels = sorted(p["label"] for p in cluster.status()["processes"])
    # A runtime is what answers for its node's pods: killing it is killing the answering pods, so it has its own test.
    harmless = [label for label in labels if not label.startswith("runtime")]
    with Asker(cluster, "node1", f"http://{address}:8080") as asker:
        for number in range(KILLS):
            label = choice.choice(harmless)
            _kill(cluster, label)
            time.sleep(choice.uniform(0, 0.15))
            if number % 10 == 9:
                name = f"kept-{number}"
                made.append(eventually("a write is acknowledged", lambda name=name: _create(cluster, name)))
            eventually("both keepers", lambda: _keepers(cluster))
    assert asker.answers > 50
    assert asker.failures == []
    _converged(cluster)
    assert set(made) <= set(cluster.kubectl("get", "configmaps", "-o", "name").split())


def test_a_killed_runtime_restarts_its_pods(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", str(MANIFEST))
    cluster.rollout("deployment/hostname-deployment")
    pods = cluster.get("pods", "-l", "app=webserver")["items"]
    before = {pod["metadata"]["uid"]: _restarts(pod) for pod in pods}
    node = pods[0]["spec"]["nodeName"]
    _kill(cluster, f"runtime-{node}")

    def restarted() -> bool:
        pods = cluster.get("pods", "-l", "app=webserver")["items"]
        mine = [pod for pod in pods if pod["spec"]["nodeName"] == node]
        ready = [c["status"] for pod in pods for c in pod["status"]["conditions"] if c["type"] == "Ready"]
        again = all(_restarts(pod) > before.get(pod["metadata"]["uid"], -1) for pod in mine)
        return again and ready == ["True"] * 3

    try:
        eventually("the pods run again", restarted)
    except AssertionError:
        print(cluster.kubectl("describe", "pods", "-l", "app=webserver"))
        logs = Path("/var/lib/netkit") / cluster.name / "logs"
        for path in sorted(logs.glob(f"*{node}.log")):
            print(f"--- {path.name}\n{path.read_text()[-6000:]}")
        raise
    after = {pod["metadata"]["uid"] for pod in cluster.get("pods", "-l", "app=webserver")["items"]}
    assert after == set(before)
    _converged(cluster)


def _restarts(pod: Any) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def _create(cluster: Cluster, name: str) -> str:
    manifest = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n"
    out = cluster.kubectl("apply", "-o", "name", "-f", "-", check=False, stdin=manifest, timeout=90)
    found = re.search(rf"configmap/{name}\b", out)
    return found.group(0) if found else ""


def _kill(cluster: Cluster, label: str) -> None:
    pid = next(
        (p["pid"] for p in cluster.status()["processes"] if p["label"] == label and p["state"] == "running"),
        None,
    )
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually("it is dead", lambda: start_time(pid) is None)


def _keepers(cluster: Cluster) -> bool:
    states = {p["label"]: p["state"] for p in cluster.status()["processes"]}
    return states.get("keeper") == states.get("standby") == "running"


def _converged(cluster: Cluster) -> None:
    eventually("the cluster is healthy", lambda: cluster.status()["healthy"])
    cluster.rollout("deployment/hostname-deployment")
    pods = cluster.get("pods", "-l", "app=webserver")["items"]
    assert len([pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]) == 3
    names = {pod["metadata"]["name"] for pod in pods}
    address = cluster.get("service", "hostname-svc-clusterip")["spec"]["clusterIP"]

    def all_answer() -> bool:
        found = {
            name
            for _ in range(12)
            for name in re.findall(
                r"hostname-deployment-[a-z0-9]+-[a-z0-9]+", cluster.curl("node2", f"http://{address}:8080")
            )
        }
        return found == names

    eventually("all pods answer", all_answer)
