"""Packets: who reaches whom, with which source address, how large, and by which road."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from support.cluster import Cluster, eventually
from support.space import Space, space

NODES = ("node1", "node2", "node3")
NETEXEC = "registry.k8s.io/e2e-test-images/agnhost:2.53"


@dataclass(frozen=True)
class Net:
    """One shell pod and one netexec pod (HTTP 8080, UDP 8081) on each node."""

    lab: Space
    servers: dict[str, Any]
    shells: dict[str, Any]

    @property
    def cluster(self) -> Cluster:
        return self.lab.cluster

    def address(self, node: str) -> str:
        """Of the node's netexec pod."""
        return str(self.servers[node]["status"]["podIP"])

    def shell_address(self, node: str) -> str:
        return str(self.shells[node]["status"]["podIP"])

    def node_address(self, node: str) -> str:
        return str(self.servers[node]["status"]["hostIP"])

    def client_ip(self, machine: str, host: str, port: int = 8080) -> str:
        """The source address the server at the other end sees, asked from a machine; "" without an answer."""
        return self.cluster.curl(machine, f"http://{host}:{port}/clientip").rpartition(":")[0]

    def client_ip_from_pod(self, node: str, host: str, port: int = 8080) -> str:
        """The same, asked from the node's shell pod."""
        script = f"curl -s -m 3 http://{host}:{port}/clientip || true"
        return self.lab.sh(f"shell-{node}", script).rpartition(":")[0]

    def hostnames(self, machine: str, host: str, port: int, times: int = 20) -> Counter[str]:
        """How often which server answered, "" for no answer."""
        ask = f"for i in $(seq {times}); do curl -s -m 2 http://{host}:{port}/hostname; echo; done"
        return Counter(self.cluster.on(machine, "sh", "-c", ask).split("\n")[:-1])

    def service(self, name: str, spec: str) -> Any:
        """Apply a Service of the netexec pods; the object."""
        self.lab.apply(
            f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: server}}, {spec}}}\n"
        )
        return self.lab.get("service", name)

    def answers(self, machine: str, host: str, port: int) -> None:
        """Wait until all servers answer there."""

        def everyone() -> bool:
            names = set(self.hostnames(machine, host, port)) - {""}
            return names == {f"server-{node}" for node in NODES}

        eventually(f"all servers answer {machine} at {host}:{port}", everyone)


@pytest.fixture(scope="module")
def net(cluster: Cluster) -> Iterator[Net]:
    with space(cluster) as lab:
        for node in NODES:
            lab.apply(
                f"""
apiVersion: v1
kind: Pod
metadata: {{name: server-{node}, labels: {{app: server}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: "{NETEXEC}", args: [netexec], ports: [{{containerPort: 8080, name: web}}]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: shell-{node}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: busybox, command: [sleep, infinity]}}]
"""
            )
        servers = {node: lab.ready(f"server-{node}") for node in NODES}
        shells = {node: lab.ready(f"shell-{node}") for node in NODES}
        yield Net(lab, servers, shells)
    assert cluster.errors_logged() == []


@contextmanager
def capture(
    cluster: Cluster, machine: str, link: str, packet_filter: str, count: int = 1
) -> Iterator[list[str]]:
    """Lines of tcpdump on a machine's link; complete after the block, which must cause `count` packets."""
    lines: list[str] = []
    argv = [
        "ip", "netns", "exec", f"{cluster.name}.{machine}",
        "timeout", "10", "tcpdump", "-l", "-n", "-v", "-i", link, "-c", str(count), packet_filter,
    ]  # fmt: skip
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while "listening on" not in process.stderr.readline():
            assert process.poll() is None
        yield lines
        lines += process.stdout.read().splitlines()


def test_pods_reach_pods_everywhere_with_their_own_address(net: Net) -> None:
    for source in NODES:
        for target in NODES:
            assert net.client_ip_from_pod(source, net.address(target)) == net.shell_address(source)


def test_pods_reach_nodes_without_nat(net: Net) -> None:
    net.lab.apply(
        f"""
apiVersion: v1
kind: Pod
metadata: {{name: on-the-node}}
spec:
  nodeName: node2
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: "{NETEXEC}", args: [netexec, --http-port=8090, --udp-port=8091]}}]
"""
    )
    net.lab.ready("on-the-node")
    node = net.node_address("node2")
    for source in NODES:
        assert net.client_ip_from_pod(source, node, 8090) == net.shell_address(source)
    # And nodes reach pods: on their own node as the bridge's gateway, elsewhere as the overlay device.
    gateway = net.shell_address("node1").rpartition(".")[0]
    assert net.client_ip("node1", net.address("node1")) == f"{gateway}.1"
    assert net.client_ip("node1", net.address("node2")) == f"{gateway}.0"


def test_pods_reach_the_outside_behind_their_nodes_address(net: Net) -> None:
    client = next(m["address"] for m in net.cluster.status()["machines"] if m["name"] == "client")
    for node in NODES:
        with capture(net.cluster, "client", "eth0", "icmp[icmptype] == icmp-echo") as seen:
            assert "1 received" in net.lab.sh(f"shell-{node}", f"ping -c 1 -W 2 {client}")
        assert f"{net.node_address(node)} > {client}" in " ".join(seen)
        assert net.shell_address(node) not in " ".join(seen)
    # The outside does not reach pods by their addresses.
    assert net.client_ip("client", net.address("node1")) == ""


def test_full_size_packets_pass_and_larger_ones_are_refused(net: Net) -> None:
    assert net.lab.sh("shell-node1", "cat /sys/class/net/eth0/mtu") == "1450\n"
    for link in ("cni0", "flannel.1"):
        assert net.cluster.on("node1", "cat", f"/sys/class/net/{link}/mtu") == "1450\n"
    for target in NODES:
        address = net.address(target)
        assert "1 received" in net.lab.sh("shell-node1", f"ping -M do -c 1 -W 2 -s 1422 {address}")
        refused = net.lab.kubectl(
            "exec",
            "shell-node1",
            "--",
            "ping",
            "-M",
            "do",
            "-c",
            "1",
            "-W",
            "1",
            "-s",
            "1423",
            address,
            check=False,
        )
        assert "message too long, mtu=1450" in refused.lower()
    # Fragments make their way too, and TCP moves megabytes.
    assert "1 received" in net.lab.sh("shell-node1", f"ping -M dont -c 1 -W 2 -s 4000 {net.address('node2')}")
    net.lab.sh("shell-node2", "head -c 20000000 /dev/urandom > /tmp/big; busybox httpd -p 8000 -h /tmp")
    wanted = net.lab.sh("shell-node2", "sha256sum < /tmp/big")
    address = net.shell_address("node2")
    assert net.lab.sh("shell-node3", f"curl -s -m 10 http://{address}:8000/big | sha256sum") == wanted


def test_the_segment_carries_vxlan_with_vni_1(net: Net) -> None:
    outer = (net.node_address("node1"), net.node_address("node2"))
    inner = (net.shell_address("node1"), net.address("node2"))
    with capture(
        net.cluster, "switch", "br0", f"udp port 8472 and src {outer[0]} and dst {outer[1]}", 1
    ) as seen:
        net.lab.sh("shell-node1", f"ping -c 2 -W 2 {inner[1]}")
    text = " ".join(seen)
    assert re.search(rf"{outer[0]}\.\d+ > {outer[1]}\.8472: OTV|VXLAN.*", text)
    assert re.search(r"(vni|instance) 1\b", text)
    assert f"{inner[0]} > {inner[1]}: ICMP echo request" in text
    # Pods of one node meet on its bridge: nothing of that is on the segment.
    with capture(net.cluster, "node1", "cni0", "icmp[icmptype] == icmp-echo") as local:
        net.lab.sh("shell-node1", f"ping -c 1 -W 2 {net.address('node1')}")
    assert f"{inner[0]} > {net.address('node1')}" in " ".join(local)


def test_a_cluster_ip_keeps_pods_addresses_and_spreads(net: Net) -> None:
    address = net.service("spread", "ports: [{port: 80, targetPort: web}]")["spec"]["clusterIP"]
    for node in NODES:
        net.answers(node, address, 80)
    for source in NODES:
        assert net.client_ip_from_pod(source, address, 80) == net.shell_address(source)
    counts = net.hostnames("node1", address, 80, times=60)
    assert sum(counts.values()) == 60
    assert min(counts[f"server-{node}"] for node in NODES) >= 5
    # The outside has no road to ClusterIPs.
    assert net.client_ip("client", address, 80) == ""


def test_hairpin_a_pod_reaches_itself_through_its_service(net: Net) -> None:
    lab = net.lab
    lab.apply(
        """
apiVersion: v1
kind: Pod
metadata: {name: narcissus, labels: {app: narcissus}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: busybox, command: [sh, -c, "echo me > /tmp/index.html; busybox httpd -f -p 8080 -h /tmp"]}
---
apiVersion: v1
kind: Service
metadata: {name: narcissus}
spec: {selector: {app: narcissus}, ports: [{port: 80, targetPort: 8080}]}
"""
    )
    lab.ready("narcissus")
    address = lab.get("service", "narcissus")["spec"]["clusterIP"]
    eventually("it answers others", lambda: lab.cluster.curl("node1", f"http://{address}/") == "me\n")
    for _ in range(5):
        assert lab.sh("narcissus", f"curl -s -m 3 http://{address}/") == "me\n"


def test_client_ip_affinity_sticks_for_its_time(net: Net) -> None:
    service = net.service(
        "sticky",
        "type: NodePort, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 2}}, "
        "ports: [{port: 80, targetPort: 8080}]",
    )
    address, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]
    eventually("it answers", lambda: net.client_ip("node1", address, 80))
    for machine, host, number in (
        ("node1", address, 80), ("node2", address, 80), ("client", net.node_address("node3"), port),
    ):  # fmt: skip
        assert len(net.hostnames(machine, host, number)) == 1
    # After the time any of them may answer: some wait brings another one.
    first = set(net.hostnames("node1", address, 80, times=1))

    def other() -> bool:
        script = f"sleep 2.2; curl -s -m 2 http://{address}/hostname"
        return {net.cluster.on("node1", "sh", "-c", script)} != first

    eventually("another server after the time", other)


def test_node_ports_from_outside(net: Net) -> None:
    spec = "type: NodePort, ports: [{port: 80, targetPort: 8080}]"
    service = net.service("outside", spec)
    port = service["spec"]["ports"][0]["nodePort"]
    client = next(m["address"] for m in net.cluster.status()["machines"] if m["name"] == "client")
    for node in NODES:
        net.answers("client", net.node_address(node), port)
    # Policy Cluster hides the client behind the node that took the packet: its bridge address on the
    # node itself, its overlay address elsewhere.
    nodes_net = net.address("node1").rpartition(".")[0]
    seen = {net.client_ip("client", net.node_address("node1"), port) for _ in range(12)}
    assert seen <= {f"{nodes_net}.0", f"{nodes_net}.1"}
    assert client not in seen

    # Policy Local keeps the client's address and answers only where there is a server.
    net.lab.kubectl("delete", "pod", "server-node3", "--now")
    try:
        net.lab.kubectl("patch", "service", "outside", "-p", '{"spec":{"externalTrafficPolicy":"Local"}}')
        eventually(
            "the client is seen", lambda: net.client_ip("client", net.node_address("node1"), port) == client
        )
        for node in ("node1", "node2"):
            eventually(
                "only its own",
                lambda node=node: (
                    set(net.hostnames("client", net.node_address(node), port)) == {f"server-{node}"}
                ),
            )
            assert net.client_ip("client", net.node_address(node), port) == client
        eventually("none there", lambda: net.client_ip("client", net.node_address("node3"), port) == "")
        # Pods and nodes are not outside: they reach every server through any node's port.
        eventually(
            "inside the cluster it is as before",
            lambda: (
                set(net.hostnames("node3", service["spec"]["clusterIP"], 80))
                == {"server-node1", "server-node2"}
            ),
        )
    finally:
        net.lab.apply(
            f"""
apiVersion: v1
kind: Pod
metadata: {{name: server-node3, labels: {{app: server}}}}
spec:
  nodeName: node3
  terminationGracePeriodSeconds: 0
  containers: [{{name: main, image: "{NETEXEC}", args: [netexec], ports: [{{containerPort: 8080, name: web}}]}}]
"""
        )
        net.servers["node3"] = net.lab.ready("server-node3")


def test_the_api_server_proxies_to_pods_and_services(net: Net) -> None:
    net.service("proxied", "ports: [{name: web, port: 80, targetPort: 8080}]")
    base = f"/api/v1/namespaces/{net.lab.name}"
    for node in NODES:
        answer = net.cluster.kubectl("get", "--raw", f"{base}/pods/server-{node}:8080/proxy/hostname")
        assert answer == f"server-{node}"
    for name in ("proxied:80", "proxied:web"):
        path = f"{base}/services/{name}/proxy/hostname"
        eventually(
            "it is proxied",
            lambda path=path: "server-" in net.cluster.kubectl("get", "--raw", path, check=False),
        )


def test_headless_services_are_not_proxied(net: Net) -> None:
    service = net.service("headless", "clusterIP: None, ports: [{port: 80, targetPort: 8080}]")
    assert service["spec"]["clusterIPs"] == ["None"]

    def addresses() -> set[str]:
        slices = net.lab.items("endpointslices", "-l", "kubernetes.io/service-name=headless")
        return {a for s in slices for e in s.get("endpoints") or () for a in e["addresses"]}

    eventually("its endpoints", lambda: addresses() == {net.address(node) for node in NODES})
    assert net.lab.row("service", "headless")[1:4] == ["ClusterIP", "None", "<none>"]
    assert "headless" not in net.cluster.on("node1", "iptables-save", "-t", "nat")


def test_udp_services(net: Net) -> None:
    service = net.service(
        "udp", "type: NodePort, ports: [{name: udp, port: 90, targetPort: 8081, protocol: UDP}]"
    )
    address, port = service["spec"]["clusterIP"], service["spec"]["ports"][0]["nodePort"]

    def ask(machine: str, host: str, number: int) -> str:
        """What the server answers to `hostname`, each time from another port."""
        script = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); "
            f"s.connect(('{host}', {number})); s.send(b'hostname'); print(s.recv(100).decode())"
        )
        return net.cluster.on(machine, "python3", "-c", script, check=False).strip()

    eventually("it answers", lambda: ask("node1", address, 90).startswith("server-node"))
    names = {ask("node1", address, 90) for _ in range(8)} - {""}
    assert len(names) > 1
    assert names <= {f"server-{node}" for node in NODES}
    assert ask("client", net.node_address("node2"), port).startswith("server-node")


def test_a_service_named_by_environment_reaches_the_api(net: Net) -> None:
    script = "curl -sk -m 3 https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version || true"
    assert "Unauthorized" in net.lab.sh("shell-node2", script) or "gitVersion" in net.lab.sh(
        "shell-node2", script
    )


def test_internal_traffic_policy_local_stays_on_the_node(net: Net) -> None:
    service = net.service("near", "internalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]")
    address = service["spec"]["clusterIP"]
    for node in NODES:
        eventually(
            "only its own", lambda node=node: set(net.hostnames(node, address, 80)) == {f"server-{node}"}
        )
