"""Machines that come, go, fail and move while a cluster works and packets flow."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import NETKIT, Cluster, eventually
from support.host import run
from support.space import Space, new_cluster
from support.traffic import Traffic, Way, echo_server, traffic
from support.workloads import IMAGE, busybox, deployment, pod

from netkit.cluster.network_inspection import check
from netkit.cluster.node_listing import list_nodes
from netkit.kernel import netns

FIRST = {"node1", "node2"}


@pytest.fixture(scope="module")
def cluster(untouched: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, and room for the pods of four; a lost node is noticed soon."""
    directory = tmp_path_factory.mktemp("home")
    config = {
        "network": {"podSubnet": "10.244.0.0/22", "nodeMask": 24},
        "nodeMonitor": {"leaseDuration": "6s", "gracePeriod": "6s", "evictionAfter": "2s"},
    }
    (directory / "cluster.yaml").write_text(yaml.safe_dump(config))
    with new_cluster("m", directory, "--nodes", "2", "--config", str(directory / "cluster.yaml")) as made:
        yield made


@pytest.fixture(autouse=True)
def two_nodes_again(cluster: Cluster) -> Iterator[None]:
    """Each test ends with the nodes it began with, and with nothing cut."""
    yield
    if any(node["cut"] for node in nodes(cluster)):
        netkit(cluster, "segment", "heal")
    for node in nodes(cluster):
        if node["state"] == "stopped":
            netkit(cluster, "node", "start", node["node"])
    added = [node["node"] for node in nodes(cluster) if node["node"] not in FIRST]
    if added:
        netkit(cluster, "node", "remove", "--force", *added)
    right(cluster, FIRST)


def netkit(cluster: Cluster, *arguments: str) -> Any:
    """What the command says with `-o json`."""
    result = cluster.netkit(*arguments, "-p", cluster.name, "-o", "json")
    return json.loads(result.stdout)


def refused(cluster: Cluster, *arguments: str) -> str:
    """The one line of the error."""
    result = cluster.netkit(*arguments, "-p", cluster.name, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    first, *hint = result.stderr.splitlines()
    assert len(hint) <= 1, result.stderr
    return first.removeprefix("netkit: ")


def nodes(cluster: Cluster) -> list[Any]:
    """What `netkit node list -o json` says, without starting the program."""
    return [asdict(node) for node in list_nodes(cluster.name)]


def names(cluster: Cluster) -> set[str]:
    return {node["node"] for node in nodes(cluster)}


def right(cluster: Cluster, wanted: set[str]) -> None:
    """These nodes are there, everywhere, nothing stale is, and the kernels are as they should be."""
    assert names(cluster) == wanted
    assert {node["metadata"]["name"] for node in cluster.get("nodes")["items"]} == wanted
    network = check(cluster.name)
    assert network.same, network
    state = Path("/var/lib/netkit") / cluster.name
    spaces = {name for name in netns.names() if name.startswith(f"{cluster.name}.node")}
    assert spaces == {f"{cluster.name}.{node}" for node in wanted}
    assert {path.name for path in (state / "nodes").iterdir()} == wanted
    ports = set(cluster.on("switch", "ls", "/sys/class/net").split())
    assert ports == {*wanted, "control-plane", "client", "host", "br0", "lo"}
    status = cluster.status()
    assert status["healthy"], status["problems"]
    labels = {p["label"] for p in status["processes"]}
    assert labels == {"keeper", "standby", "control-plane"} | {
        f"{part}-{node}" for part in ("agent", "runtime") for node in wanted
    }
    kept = {path.stem for path in (state / "ledger").iterdir()} | {
        path.stem for path in (state / "pki").iterdir()
    }
    assert {name for name in kept if name.startswith("node")} == {
        f"{node}{end}" for node in wanted for end in ("", "-kubelet")
    }


def place(node: str, *, tolerant: bool = False) -> str:
    """Of a pod's spec: on this node, come what may."""
    more = "\n  tolerations: [{operator: Exists}]" if tolerant else ""
    return f"nodeSelector: {{kubernetes.io/hostname: {node}}}{more}"


def under_traffic(lab: Space, work: Callable[[], None]) -> Traffic:
    """Do the work in a thread while pods on node1 talk to one on node2, and by a Service."""
    for name, node in (("caller", "node1"), ("server", "node2")):
        lab.apply(pod(name, place(node)))
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: echo}\n"
        "spec: {selector: {app: server}, ports: [{port: 80, targetPort: 7070}]}\n"
    )
    found = {name: lab.ready(name) for name in ("caller", "server")}
    lab.kubectl("label", "pod", "server", "app=server", "--overwrite")
    address = lab.get("service", "echo")["spec"]["clusterIP"]
    eventually("an endpoint", lambda: "10.244" in lab.kubectl("get", "endpoints", "echo", "--no-headers"))

    def space(name: str) -> netns.Namespace:
        uid = found[name]["metadata"]["uid"][:6]
        return netns.open_namespace(f"{lab.cluster.name}.{lab.name}.{name}.{uid}")

    async def play() -> Traffic:
        target = found["server"]["status"]["podIP"]
        with space("caller") as caller, space("server") as server:
            async with (
                echo_server(server, target, 7070),
                traffic(
                    Way("pod to pod", caller, target, 7070),
                    Way("pod to cluster IP", caller, address, 80),
                    resent=True,
                ) as told,
            ):
                await told.more()
                await asyncio.to_thread(work)
                await told.more()
                return told

    return asyncio.run(play())


def test_nodes_join_and_leave_while_others_talk(cluster: Cluster, lab: Space) -> None:
    def come_and_go() -> None:
        added = netkit(cluster, "node", "add", "--count", "2")
        assert [(change["node"], change["what"]) for change in added] == [
            ("node3", "joined"),
            ("node4", "joined"),
        ]
        right(cluster, {*FIRST, "node3", "node4"})
        lab.apply(pod("guest", place("node3"), image=IMAGE))
        address = lab.ready("guest")["status"]["podIP"]
        for node in ("node1", "node4"):
            assert "guest" in cluster.curl(node, f"http://{address}/")
        # A pod that nobody makes anew is not thrown away.
        assert refused(cluster, "node", "remove", "node3") == (
            f"node3 has pods that nobody would make anew: {lab.name}/guest"
        )
        assert not any(node["schedulable"] is False for node in nodes(cluster))
        lab.kubectl("delete", "pod", "guest")
        lab.apply(deployment("moving", replicas=4))
        lab.rollout("deployment/moving")
        gone = netkit(cluster, "node", "remove", "node3", "node4")
        assert [(change["node"], change["what"]) for change in gone] == [
            ("node3", "gone"),
            ("node4", "gone"),
        ]
        right(cluster, FIRST)
        lab.rollout("deployment/moving")
        lab.kubectl("delete", "deployment", "moving")

    told = under_traffic(lab, come_and_go)
    assert told.failures == []


def test_a_range_that_is_used_up_is_named_and_comes_free(cluster: Cluster) -> None:
    netkit(cluster, "node", "add", "-n", "2")
    assert refused(cluster, "node", "add", "late") == "there is no range of pod addresses left for late"
    right(cluster, {*FIRST, "node3", "node4"})
    freed = next(node["pod_range"] for node in nodes(cluster) if node["node"] == "node3")
    netkit(cluster, "node", "remove", "node3")
    netkit(cluster, "node", "add", "node5")
    assert next(node["pod_range"] for node in nodes(cluster) if node["node"] == "node5") == freed
    right(cluster, {*FIRST, "node4", "node5"})


def test_a_stopped_node_is_noticed_replaced_and_comes_back(cluster: Cluster, lab: Space) -> None:
    lab.apply(deployment(replicas=4))
    lab.apply(busybox("sleeper", "sleep 1000").replace("\nspec:", f"\nspec:\n  {place('node2')}"))
    sleeping = f"{cluster.name}.{lab.name}.sleeper.{lab.ready('sleeper')['metadata']['uid'][:6]}"
    assert cluster_pids(sleeping)
    lab.rollout()
    lost = {p["metadata"]["name"] for p in lab.pods() if p["spec"]["nodeName"] == "node2"}
    assert lost
    assert netkit(cluster, "node", "stop", "node2")["what"] == "stopped"
    assert "node2 is stopped already" in refused(cluster, "node", "stop", "node2")
    labels = {p["label"] for p in cluster.status()["processes"]}
    assert not labels & {"agent-node2", "runtime-node2"}
    eventually("its containers died with it", lambda: not cluster_pids(sleeping))
    assert "node node2 is stopped" in cluster.status()["problems"]
    assert not cluster.on("node1", "ping", "-c1", "-W1", "172.18.0.12", check=False).count(" 0% packet loss")
    line = lambda: next(node for node in nodes(cluster) if node["node"] == "node2")  # noqa: E731
    eventually("it is not ready", lambda: line()["ready"] == "Unknown")
    eventually("its pods are replaced", lambda: {p["spec"].get("nodeName") for p in lab.pods()} == {"node1"})
    lab.rollout()
    # Keepers that come anew do not start it.
    active = next(p["pid"] for p in cluster.status()["processes"] if p["label"] == "keeper")
    os.kill(active, signal.SIGKILL)
    eventually("another keeper", lambda: keeper(cluster) not in (0, active))
    assert "agent-node2" not in {p["label"] for p in cluster.status()["processes"]}
    assert netkit(cluster, "node", "start", "node2")["what"] == "started"
    assert line()["ready"] == "True"
    eventually("the old pods are gone", lambda: not lost & {p["metadata"]["name"] for p in lab.items("pods")})
    right(cluster, FIRST)


def cluster_pids(space: str) -> list[str]:
    """The processes in a pod's namespace."""
    return run("ip", "netns", "pids", space).stdout.split()


def test_a_node_that_is_off_is_removed_without_asking_it(cluster: Cluster) -> None:
    netkit(cluster, "node", "add")
    netkit(cluster, "node", "stop", "node3")
    assert [change["what"] for change in netkit(cluster, "node", "remove", "node3")] == ["gone"]
    right(cluster, FIRST)


def test_a_removal_that_is_killed_is_finished_by_the_next(cluster: Cluster) -> None:
    wish = Path("/var/lib/netkit") / cluster.name / "roster" / "wish.json"
    netkit(cluster, "node", "add")
    command = [NETKIT, "node", "remove", "node3", "-p", cluster.name]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.DEVNULL) as removing:
        eventually("it is asked for", lambda: "node3" not in wish.read_text())
        removing.kill()
    if "node3" in cluster.kubectl("get", "nodes", "-o", "name"):
        netkit(cluster, "node", "remove", "node3")
    eventually("nothing is left", lambda: not netns.exists(f"{cluster.name}.node3"))
    right(cluster, FIRST)


def keeper(cluster: Cluster) -> int:
    """The process of the keeper, 0 while there are not two."""
    running = {p["label"]: p["pid"] for p in cluster.status()["processes"] if p["state"] == "running"}
    return running["keeper"] if {"keeper", "standby"} <= set(running) else 0


def test_a_node_outlives_the_keeper_that_made_it(cluster: Cluster) -> None:
    netkit(cluster, "node", "add")
    active = keeper(cluster)
    os.kill(active, signal.SIGKILL)
    eventually("another keeper", lambda: keeper(cluster) not in (0, active))
    agent = next(p["pid"] for p in cluster.status()["processes"] if p["label"] == "agent-node3")
    os.kill(agent, signal.SIGKILL)
    eventually("the agent is back", lambda: agent_of(cluster, "node3") not in (0, agent))
    right(cluster, {*FIRST, "node3"})


def agent_of(cluster: Cluster, node: str) -> int:
    running = {p["label"]: p["pid"] for p in cluster.status()["processes"] if p["state"] == "running"}
    return int(running.get(f"agent-{node}", 0))


def test_cut_and_heal(cluster: Cluster) -> None:
    def reached(one: str, other: str) -> bool:
        return " 0% packet loss" in cluster.on(one, "ping", "-c1", "-W1", other, check=False)

    view = netkit(cluster, "segment", "cut", "node1", "node2")
    assert (view["whole"], view["apart"]) == (False, [["node1", "node2"]])
    assert not reached("node1", "172.18.0.12")
    assert reached("client", "172.18.0.12")
    assert "nothing passes between node1 and node2: the segment is cut" in cluster.status()["problems"]
    netkit(cluster, "segment", "heal", "node2")
    eventually("it is reached", lambda: reached("node1", "172.18.0.12"))
    view = netkit(cluster, "segment", "cut", "node2")
    assert {cable["machine"]: cable["why"] for cable in view["cables"] if not cable["up"]} == {"node2": "cut"}
    assert "the cable of node2 is cut" in cluster.status()["problems"]
    assert next(node["cut"] for node in nodes(cluster) if node["node"] == "node2")
    # The cut stays when other things change.
    netkit(cluster, "node", "add")
    assert not reached("node1", "172.18.0.12")
    assert netkit(cluster, "segment", "heal")["whole"]
    eventually("it is reached", lambda: reached("node1", "172.18.0.12"))
    assert "nothing is cut at node2" in refused(cluster, "segment", "heal", "node2")
    eventually("all is well", lambda: cluster.status()["healthy"])


def test_an_address_changes_and_pods_go_on(cluster: Cluster, lab: Space) -> None:
    for name, node in (("here", "node1"), ("there", "node2")):
        lab.apply(pod(name, place(node, tolerant=True), image=IMAGE))
    before = {name: lab.ready(name) for name in ("here", "there")}
    moved = netkit(cluster, "node", "readdress", "node2", "172.18.0.77")
    assert (moved["what"], moved["address"]) == ("moved", "172.18.0.77")
    try:
        node = cluster.get("node", "node2")
        assert "172.18.0.77" in [item["address"] for item in node["status"]["addresses"]]
        assert node["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] == "172.18.0.77"
        right(cluster, FIRST)
        assert "172.18.0.12" not in cluster.on("node2", "ip", "address")
        for rules in ("fdb", "route"):
            command = ("bridge", "fdb") if rules == "fdb" else ("ip", "route")
            assert "172.18.0.12" not in cluster.on("node1", *command)
        for name in ("here", "there"):
            after = lab.ready(name)
            assert after["status"]["podIP"] == before[name]["status"]["podIP"]
            assert after["status"]["startTime"] == before[name]["status"]["startTime"]
            assert lab.container(name)["restartCount"] == 0
        address = before["there"]["status"]["podIP"]
        eventually("it is reached", lambda: "there" in cluster.curl("node1", f"http://{address}/"))
        # The API server asks the kubelet by its new address, and its certificate has that.
        assert lab.sh("there", "echo hello") == "hello\n"
        eventually(
            "pods know their host", lambda: lab.get("pod", "there")["status"]["hostIP"] == "172.18.0.77"
        )
    finally:
        netkit(cluster, "node", "readdress", "node2", "172.18.0.12")


def test_ctrl_c_leaves_nothing_and_a_killed_command_no_half_node(cluster: Cluster) -> None:
    wish = Path("/var/lib/netkit") / cluster.name / "roster" / "wish.json"
    for signum, left in ((signal.SIGINT, set()), (signal.SIGKILL, {"node3"})):
        command = [NETKIT, "node", "add", "-p", cluster.name]
        with subprocess.Popen(command, env=cluster.environment, stderr=subprocess.PIPE, text=True) as adding:
            eventually("it is asked for", lambda: "node3" in wish.read_text())
            adding.send_signal(signum)
            assert adding.wait(60) == (130 if signum == signal.SIGINT else -signum)
        eventually("the keepers are done", lambda left=left: names(cluster) == FIRST | left)
        if left:
            eventually("it is Ready", lambda: all(node["ready"] == "True" for node in nodes(cluster)))
        right(cluster, FIRST | left)


def test_cordon_and_drain(cluster: Cluster, lab: Space) -> None:
    lab.apply(deployment(replicas=4))
    lab.rollout()
    assert netkit(cluster, "node", "cordon", "node2", "node1")[0] == {
        "node": "node2",
        "schedulable": False,
        "changed": True,
    }
    assert [node["schedulable"] for node in netkit(cluster, "node", "list")] == [False, False]
    netkit(cluster, "node", "uncordon", "node1")
    leaving = {f"{lab.name}/{p['metadata']['name']}" for p in lab.pods() if p["spec"]["nodeName"] == "node2"}
    assert leaving <= set(netkit(cluster, "node", "drain", "node2")["evicted"])
    lab.rollout()
    assert {p["spec"]["nodeName"] for p in lab.pods()} == {"node1"}
    netkit(cluster, "node", "uncordon", "node2")
    lab.apply(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: all}\n"
        "spec: {minAvailable: 4, selector: {matchLabels: {app: web}}}\n"
    )
    eventually("the budget", lambda: lab.get("pdb", "all")["status"].get("currentHealthy") == 4)
    text = refused(cluster, "node", "drain", "node1", "--timeout", "1")
    assert text.startswith(f"node1 still has pods after 1 s: {lab.name}/web-")
    assert all(node["schedulable"] for node in nodes(cluster))


def test_what_cannot_be_is_refused(cluster: Cluster) -> None:
    for arguments, message in (
        (("remove", "node9"), f"cluster {cluster.name} has no node node9"),
        (("remove", "node1", "node2"), "node1 and node2: a cluster needs one node at least"),
        (("add", "node1"), f"cluster {cluster.name} has a machine node1 already"),
        (("readdress", "node1", "172.18.0.12"), "172.18.0.12 belongs to node2"),
        (("readdress", "node1", "here"), "'here' is not an IPv4 address"),
    ):
        assert refused(cluster, "node", *arguments) == message
    result = cluster.netkit("node", "add", "-p", "nobody", check=False)
    assert (result.returncode, "there is no cluster nobody" in result.stderr) == (1, True)
