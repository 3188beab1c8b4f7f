"""Where pods are put, what keeps them away, and what becomes of them when their node is lost."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
import yaml
from support.cluster import Cluster, eventually, needs_kubectl
from support.space import Space, new_cluster
from support.workloads import IMAGE, deployment, pod

HOPELESS = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
NO_VICTIMS = "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."


@pytest.fixture(scope="module")
def cluster(untouched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes that count as lost after six seconds and lose their pods two seconds later."""
    directory = tmp_path_factory.mktemp("home")
    monitor = {"leaseDuration": "6s", "gracePeriod": "6s", "evictionAfter": "2s"}
    (directory / "cluster.yaml").write_text(yaml.safe_dump({"nodeMonitor": monitor}))
    with new_cluster("c", directory, "--config", str(directory / "cluster.yaml")) as made:
        yield made


@pytest.mark.parametrize(
    ("spec", "container", "message"),
    [
        (
            "nodeSelector: {disk: none}", "",
            f"0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {HOPELESS}",
        ),
        (
            "", "resources: {requests: {cpu: 4000, memory: 1Pi}}",
            f"0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient memory. {HOPELESS}",
        ),
        (
            "", 'resources: {requests: {"example.com/gpu": 1}, limits: {"example.com/gpu": 1}}',
            f"0/3 nodes are available: 3 Insufficient example.com/gpu. {HOPELESS}",
        ),
        (
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "
            "[{matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, "
            "values: [node1, node2, node3]}]}]}}}", "",
            f"0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. {HOPELESS}",
        ),
    ],
    ids=["selector", "resources", "extended", "affinity"],
)  # fmt: skip
def test_a_pod_that_fits_nowhere_says_why(lab: Space, spec: str, container: str, message: str) -> None:
    lab.apply(pod("big", spec, container=container))
    assert lab.event("big", "FailedScheduling") == message
    assert lab.row("pod", "big")[2] == "Pending"
    condition = eventually(
        "the condition", lambda: (lab.get("pod", "big")["status"].get("conditions") or [None])[0]
    )
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "PodScheduled",
        "False",
        "Unschedulable",
    )
    assert condition["message"] == message
    assert "Warning  FailedScheduling" in lab.kubectl("describe", "pod", "big")


def test_host_ports_and_antiaffinity_take_one_node_each(lab: Space) -> None:
    ports = "ports: [{containerPort: 80, hostPort: 8085}]"
    for number in range(4):
        lab.apply(pod(f"port-{number}", container=ports))
    anti = (
        "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "[{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: apart}}}]}}"
    )
    lab.apply(deployment("apart", replicas=4, pod=anti))

    def pending(prefix: str) -> list[str]:
        return [
            p["metadata"]["name"]
            for p in lab.items("pods")
            if p["metadata"]["name"].startswith(prefix) and not p["spec"].get("nodeName")
        ]

    eventually("three have a port", lambda: len(pending("port-")) == 1)
    eventually("three are apart", lambda: len(pending("apart-")) == 1)
    assert lab.event(pending("port-")[0], "FailedScheduling") == (
        f"0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports. {NO_VICTIMS}"
    )
    assert lab.event(pending("apart-")[0], "FailedScheduling") == (
        f"0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. {NO_VICTIMS}"
    )
    running = next(
        p["metadata"]["name"]
        for p in lab.items("pods")
        if p["metadata"]["name"].startswith("port-") and p["spec"].get("nodeName")
    )
    lab.kubectl("delete", "pod", running)
    eventually("the port is taken over", lambda: not pending("port-"))


def test_labels_and_taints_guide_pods(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(pod("picky", f"nodeSelector: {{{lab.name}: ssd}}"))
    lab.event("picky", "FailedScheduling")
    assert cluster.kubectl("label", "node", "node2", f"{lab.name}=ssd") == "node/node2 labeled\n"
    assert lab.ready("picky")["spec"]["nodeName"] == "node2"
    try:
        assert cluster.kubectl("taint", "nodes", "node1", "node2", f"{lab.name}=yes:NoSchedule") == (
            "node/node1 tainted\nnode/node2 tainted\n"
        )
        lab.apply(deployment(replicas=4))
        lab.rollout()
        assert {p["spec"]["nodeName"] for p in lab.pods()} == {"node3"}
        lab.apply(pod("refused", "nodeSelector: {kubernetes.io/hostname: node1}"))
        message = lab.event("refused", "FailedScheduling")
        assert message == (
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
            f"2 node(s) had untolerated taint {{{lab.name}: yes}}. {HOPELESS}"
        )
        lab.apply(
            pod(
                "patient",
                "nodeSelector: {kubernetes.io/hostname: node1}\n"
                f"  tolerations: [{{key: {lab.name}, operator: Exists}}]",
            )
        )
        assert lab.ready("patient")["spec"]["nodeName"] == "node1"
        # NoExecute drives out what is there already, unless it tolerates it.
        cluster.kubectl("taint", "nodes", "node2", f"{lab.name}=now:NoExecute")
        eventually("driven out", lambda: "NotFound" in lab.kubectl("get", "pod", "picky", check=False))
        assert lab.event("picky", "TaintManagerEviction") == f"Marking for deletion Pod {lab.name}/picky"
        assert lab.get("pod", "patient")["status"]["phase"] == "Running"
    finally:
        cluster.kubectl("taint", "nodes", "node1", "node2", f"{lab.name}-", check=False)
    eventually("room again", lambda: lab.get("pod", "refused")["spec"].get("nodeName") == "node1")


@needs_kubectl(24)
def test_cordon_drain_uncordon(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(deployment(replicas=6))
    lab.apply(pod("bare", "nodeSelector: {kubernetes.io/hostname: node2}"))
    lab.rollout()
    lab.ready("bare")
    assert any(p["spec"]["nodeName"] == "node2" for p in lab.pods())
    try:
        assert cluster.kubectl("cordon", "node2") == "node/node2 cordoned\n"
        assert (
            cluster.kubectl("get", "node", "node2", "--no-headers").split()[1] == "Ready,SchedulingDisabled"
        )
        assert "Unschedulable:      true" in cluster.kubectl("describe", "node", "node2")
        refused = cluster.kubectl("drain", "node2", check=False)
        assert "cannot delete Pods that declare no controller (use --force to override)" in refused
        drained = cluster.kubectl("drain", "node2", "--force", "--timeout=40s", check=False)
        assert "node/node2 drained" in drained
        assert re.search(r"pod/web-\S+ evicted", drained)
        assert "pod/bare evicted" in drained
        lab.rollout()
        assert "node2" not in {p["spec"]["nodeName"] for p in lab.pods()}
        assert len(lab.pods()) == 6
        lab.apply(pod("back", "nodeSelector: {kubernetes.io/hostname: node2}"))
        assert "1 node(s) were unschedulable" in lab.event("back", "FailedScheduling")
    finally:
        assert cluster.kubectl("uncordon", "node2") == "node/node2 uncordoned\n"
    assert lab.ready("back")["spec"]["nodeName"] == "node2"


# nodes


def ready_status(cluster: Cluster, node: str) -> str:
    return cluster.kubectl("get", "node", node, "--no-headers").split()[1]


def test_a_node_that_is_cut_off_is_replaced_and_comes_back(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(deployment(replicas=3))
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    )
    lab.rollout()
    lost = {p["metadata"]["name"] for p in lab.pods() if p["spec"]["nodeName"] == "node3"}
    assert lost
    address = lab.get("service", "web")["spec"]["clusterIP"]
    port = next(
        line.split()[1].split("@")[0].rstrip(":")
        for line in cluster.on("switch", "ip", "-o", "link", "show").splitlines()
        if "node3" in line
    )
    cluster.on("switch", "ip", "link", "set", port, "down")
    try:
        eventually("node3 is not ready", lambda: ready_status(cluster, "node3") == "NotReady")
        condition = next(
            c for c in cluster.get("node", "node3")["status"]["conditions"] if c["type"] == "Ready"
        )
        assert (condition["status"], condition["reason"], condition["message"]) == (
            "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.",
        )  # fmt: skip
        # Its pods count as not ready at once, so the Service answers from the others only.

        def ready_endpoints() -> set[str]:
            slices = lab.items("endpointslices", "-l", "kubernetes.io/service-name=web")
            return {
                e["targetRef"]["name"]
                for s in slices
                for e in s.get("endpoints") or ()
                if e["conditions"]["ready"]
            }

        eventually("its pods do not serve", lambda: not ready_endpoints() & lost)
        codes = cluster.on(
            "node1",
            "sh",
            "-c",
            f"for i in 1 2 3 4 5 6 7 8; do curl -s -m 2 -o /dev/null http://{address}/; echo $?; done",
        )
        assert set(codes.split()) == {"0"}
        eventually(
            "tainted",
            lambda: (
                "node.kubernetes.io/unreachable"
                in {t["key"] for t in cluster.get("node", "node3")["spec"].get("taints", [])}
            ),
        )
        eventually(
            "replaced",
            lambda: len([p for p in lab.pods() if p["spec"].get("nodeName") in ("node1", "node2")]) == 3,
            30,
        )
        lab.rollout()
        for name in lost:
            assert lab.row("pod", name)[2] == "Terminating"
        assert "NodeNotReady" in {event["reason"] for event in cluster.get("events", "-A")["items"]}
    finally:
        cluster.on("switch", "ip", "link", "set", port, "up")
    eventually("node3 is back", lambda: ready_status(cluster, "node3") == "Ready")
    eventually("no taints", lambda: not cluster.get("node", "node3")["spec"].get("taints"))
    eventually("the old pods are gone", lambda: not lost & {p["metadata"]["name"] for p in lab.items("pods")})
    lab.apply(pod("there", "nodeSelector: {kubernetes.io/hostname: node3}", image=IMAGE))
    found = lab.ready("there")
    eventually(
        "pods of node3 are reached",
        lambda: "there" in cluster.curl("node1", f"http://{found['status']['podIP']}/"),
    )


def test_a_node_whose_agent_hangs_is_not_ready_but_its_pods_go_on(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(
        pod(
            "kept",
            "nodeSelector: {kubernetes.io/hostname: node3}\n  tolerations: [{operator: Exists}]",
            image=IMAGE,
        )
    )
    address = lab.ready("kept")["status"]["podIP"]
    agent = next(p["pid"] for p in cluster.status()["processes"] if p["label"] == "agent-node3")
    os.kill(agent, signal.SIGSTOP)
    try:
        eventually("node3 is not ready", lambda: ready_status(cluster, "node3") == "NotReady")
        assert "kept" in cluster.curl("node1", f"http://{address}/")
        assert cluster.status()["healthy"] is False
    finally:
        os.kill(agent, signal.SIGCONT)
    eventually("node3 is ready", lambda: ready_status(cluster, "node3") == "Ready")
    eventually("the pod is ready", lambda: lab.row("pod", "kept")[1] == "1/1")
    assert lab.container("kept")["restartCount"] == 0
    agent_now = next(p["pid"] for p in cluster.status()["processes"] if p["label"] == "agent-node3")
    assert agent_now == agent


def test_a_deleted_node_registers_again_and_its_pods_go_on(lab: Space) -> None:
    cluster = lab.cluster
    lab.apply(pod("kept", "nodeSelector: {kubernetes.io/hostname: node3}", image=IMAGE))
    before = lab.ready("kept")
    old = cluster.get("node", "node3")
    cluster.kubectl("delete", "node", "node3")
    eventually("it is there again", lambda: "node3" in cluster.kubectl("get", "nodes", "-o", "name"))
    eventually("and ready", lambda: ready_status(cluster, "node3") == "Ready")
    new = cluster.get("node", "node3")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["spec"]["podCIDR"] == old["spec"]["podCIDR"]
    after = lab.ready("kept")
    assert after["status"]["podIP"] == before["status"]["podIP"]
    assert lab.container("kept")["restartCount"] == 0
    eventually(
        "it is reached", lambda: "kept" in cluster.curl("node1", f"http://{after['status']['podIP']}/")
    )
