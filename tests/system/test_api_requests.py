"""`netkit api requests` on a whole cluster: who asks its API server what."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from typing import Any

from support.cluster import NETKIT, Cluster, eventually
from support.space import Space


def asked(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        cluster.netkit("api", "requests", "-p", cluster.name, "-o", "json", *arguments).stdout
    )
    return found


def test_the_parts_of_a_cluster_all_ask_the_api_server(cluster: Cluster) -> None:
    people = {one["who"]: one for one in asked(cluster)["callers"]}
    for who in ("kube-controller-manager", "kube-proxy", "node1 (kubelet)"):
        assert people[who]["open"] > 0, who
    text = cluster.netkit("api", "requests", "-p", cluster.name).stdout
    assert text.startswith("WHO ")
    assert "node1 (kubelet)" in text
    detailed = cluster.netkit("api", "requests", "-d", "-l", "3", "-p", cluster.name).stdout
    assert detailed.startswith("USER ")
    assert "--limit 0 shows all" in detailed


def test_one_kubectl_run_is_many_requests(lab: Space) -> None:
    lab.kubectl("run", "web", "--image=nginx")
    lab.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")

    def told() -> bool:
        calls = asked(lab.cluster, "-n", lab.name, "--since", "2m")["latest"]
        steps = {(call["verb"], call["what"]) for call in calls}
        return {("create", "pods"), ("create", "pods/binding"), ("patch", "pods/status")} <= steps

    eventually("the steps are in the list", told)


def test_live_until_interrupted(lab: Space) -> None:
    environment = {**lab.cluster.environment, "PYTHONUNBUFFERED": "1"}
    command = [NETKIT, "api", "requests", "-w", "-r", "configmaps", "-p", lab.cluster.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as live:
        try:
            assert live.stdout is not None
            assert live.stderr is not None
            out = live.stdout.fileno()

            def seen() -> bool:
                lab.kubectl("get", "configmap", "none", check=False)
                ready, _, _ = select.select([out], [], [], 0.1)
                return bool(ready) and b"get configmaps" in os.read(out, 65536)

            eventually("a request is printed", seen)
            live.send_signal(signal.SIGINT)
            assert live.wait(10) == 130
            assert live.stderr.read() == b""
        finally:
            live.kill()


def test_a_cluster_that_is_not_there(cluster: Cluster) -> None:
    result = cluster.netkit("api", "requests", "-p", "nowhere", check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("netkit: there is no cluster nowhere")
