"""DaemonSets, StatefulSets and ReplicationControllers on a whole cluster, with pods that really run."""

from __future__ import annotations

from typing import Any

from support.cluster import eventually, needs_kubectl
from support.space import Space, background
from support.workloads import IMAGE

NODES = {"node1", "node2", "node3"}


def workload(kind: str, name: str, spec: str, pod: str = "") -> str:
    """A workload whose container answers on port 80 with its host name."""
    selector = f"{{app: {name}}}" if kind == "ReplicationController" else f"{{matchLabels: {{app: {name}}}}}"
    api_version = "v1" if kind == "ReplicationController" else "apps/v1"
    fields = "".join(f"\n  {line}" for line in spec.splitlines())
    pod_fields = "".join(f"\n      {line}" for line in pod.splitlines())
    return f"""
apiVersion: {api_version}
kind: {kind}
metadata: {{name: {name}}}
spec:
  selector: {selector}{fields}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1{pod_fields}
      containers:
      - name: web
        image: "{IMAGE}"
        ports: [{{containerPort: 80}}]
        env: [{{name: COLOUR, value: "1"}}]
"""


def by_node(lab: Space, app: str) -> dict[str, str]:
    """Pod names by node, of pods that are not being deleted."""
    return {pod["spec"].get("nodeName", ""): pod["metadata"]["name"] for pod in lab.pods(f"app={app}")}


def names(lab: Space, app: str) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in lab.items("pods", "-l", f"app={app}"))


@needs_kubectl(27)
def test_a_daemon_set_runs_on_every_node_also_on_a_cordoned_one_and_updates_node_by_node(lab: Space) -> None:
    lab.cluster.kubectl("cordon", "node3")
    try:
        lab.apply(workload("DaemonSet", "agent", ""))
        assert 'daemon set "agent" successfully rolled out' in lab.rollout("ds/agent")
        assert set(by_node(lab, "agent")) == NODES
    finally:
        lab.cluster.kubectl("uncordon", "node3")
    before = by_node(lab, "agent")
    lab.kubectl("delete", "pod", before["node1"])
    again = eventually(
        "a new pod on node1", lambda: by_node(lab, "agent").get("node1") not in (None, before["node1"])
    )
    assert again
    lab.rollout("ds/agent")
    available: list[int] = []
    lab.kubectl("set", "env", "ds/agent", "COLOUR=2")

    def updated() -> bool:
        status = lab.get("ds", "agent")["status"]
        available.append(status.get("numberAvailable", 0))
        return bool(status.get("updatedNumberScheduled") == 3 and available[-1] == 3)

    eventually("all nodes have the new pod", updated)
    assert min(available) >= 2
    assert set(by_node(lab, "agent")) == NODES
    lab.kubectl("rollout", "undo", "ds/agent")
    lab.rollout("ds/agent")
    colours = {pod["spec"]["containers"][0]["env"][0]["value"] for pod in lab.pods("app=agent")}
    assert colours == {"1"}
    lab.kubectl("delete", "ds", "agent")
    eventually("all daemons are gone", lambda: not names(lab, "agent"))


@needs_kubectl(27)
def test_a_stateful_set_starts_updates_and_shrinks_in_order_under_its_names(lab: Space) -> None:
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: peers}\n"
        "spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}\n"
    )
    with background(lab, "get", "pods", "-l", "app=db", "-w", "--no-headers") as watch:
        lab.apply(workload("StatefulSet", "db", "serviceName: peers\nreplicas: 3"))
        lab.rollout("sts/db")
        watch.until("the last pod runs", lambda lines: any(_is(line, "db-2", "Running") for line in lines))
        first = [line.split()[0] for line in watch.lines if _is(line, "", "1/1")]
    assert list(dict.fromkeys(first)) == ["db-0", "db-1", "db-2"]
    pod = lab.get("pod", "db-1")
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert lab.sh("db-1", "hostname").strip() == "db-1"
    assert f"db-1.peers.{lab.name}.svc.cluster.local" in lab.sh("db-1", "cat /etc/hosts")
    hosts = eventually("three hosts", lambda: _hosts(lab) if len(_hosts(lab)) == 3 else None)
    assert hosts == {"db-0", "db-1", "db-2"}
    before = {each["metadata"]["name"]: each["metadata"]["uid"] for each in lab.pods("app=db")}
    lab.kubectl("patch", "sts", "db", "-p", '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":2}}}}')
    lab.kubectl("set", "env", "sts/db", "COLOUR=2")
    lab.rollout("sts/db")
    canary = {each["metadata"]["name"]: each["metadata"]["uid"] for each in lab.pods("app=db")}
    assert {name for name in canary if canary[name] != before[name]} == {"db-2"}
    status = lab.get("sts", "db")["status"]
    assert status["currentRevision"] != status["updateRevision"]
    lab.kubectl("patch", "sts", "db", "-p", '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}')
    eventually("the update is done", lambda: _is_updated(lab))
    lab.kubectl("scale", "sts/db", "--replicas=1")
    seen: list[list[str]] = []

    def shrunk() -> bool:
        seen.append(names(lab, "db"))
        return seen[-1] == ["db-0"]

    eventually("one pod is left", shrunk)
    assert all(found == sorted(found)[: len(found)] and "db-0" in found for found in seen)
    assert ["db-0", "db-2"] not in seen


def _is(line: str, name: str, word: str) -> bool:
    return line.startswith(name) and word in line.split()


def _hosts(lab: Space) -> set[str]:
    found: list[Any] = lab.items("endpointslices", "-l", "kubernetes.io/service-name=peers")
    return {endpoint.get("hostname", "") for each in found for endpoint in each.get("endpoints") or ()}


def _is_updated(lab: Space) -> bool:
    status = lab.get("sts", "db")["status"]
    return bool(status["currentRevision"] == status["updateRevision"] and status.get("readyReplicas") == 3)


@needs_kubectl(27)
def test_a_replication_controller_replaces_lost_pods_and_scales(lab: Space) -> None:
    lab.apply(workload("ReplicationController", "old", "replicas: 2"))

    def ready(count: int) -> None:
        eventually(
            f"{count} are ready",
            lambda: lab.get("rc", "old")["status"].get("readyReplicas", 0) == count,
        )

    ready(2)
    lost = names(lab, "old")[0]
    lab.kubectl("delete", "pod", lost)
    eventually("another pod", lambda: len(names(lab, "old")) == 2 and lost not in names(lab, "old"))
    ready(2)
    assert lab.kubectl("scale", "rc/old", "--replicas=3") == "replicationcontroller/old scaled\n"
    ready(3)
    kept = names(lab, "old")
    lab.kubectl("delete", "rc", "old", "--cascade=orphan")
    assert names(lab, "old") == kept


@needs_kubectl(27)
def test_a_pod_with_a_claim_that_nobody_binds_waits_and_says_so(lab: Space) -> None:
    spec = (
        "serviceName: peers\nvolumeClaimTemplates:\n- metadata: {name: www}\n  spec: {accessModes: [ReadWriteOnce], "
        "resources: {requests: {storage: 1Gi}}}"
    )
    lab.apply(workload("StatefulSet", "db", spec))
    told = lab.event("db-0", "FailedScheduling")
    assert "pod has unbound immediate PersistentVolumeClaims" in told
    assert lab.row("pvc", "www-db-0")[1] == "Pending"
