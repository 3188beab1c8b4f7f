"""`netkit proxy explain`, `rules` and `diff` on a real kernel in ipvs mode, held against what its own programs say."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from support.apiserver import Served
from support.apiserver import cluster as cluster_api
from support.ipvs_cluster import BALANCER, EXTERNAL, NODE_PORT, PORT, Cluster, at
from support.proxy import Object, service, slice_of
from support.proxy_net import NODE1, PODS, Net, Reply

from controlplane.client import kubeconfig
from controlplane.client.kubeconfig import Credentials
from netkit.cluster.proxy_access import Alone
from netkit.cluster.proxy_inspection import Comparison, Question, compare, explain_connection, standing_rules
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run
from netkit.proxy.explain.explanation import Explanation
from netkit.proxy.explain.target import To
from netkit.proxy.listing import Difference, Section, differences

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIP = "10.96.7.7"
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node1"},
    "status": {"addresses": [{"type": "InternalIP", "address": NODE1}]},
}
CONFIGURATION = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: ipvs
clusterCIDR: 10.244.0.0/16
"""
A1, B1 = (f"{PODS[pod][1]}:8080" for pod in ("a1", "b1"))
BOTH = (f"{A1} weight 1", f"{B1} weight 1")
PROGRAM = (sys.executable, "-c", "from netkit.cli.script import run; run()", "proxy")


def web() -> Object:
    ports = [{"name": "p", "port": PORT, "nodePort": NODE_PORT, "protocol": "TCP"}]
    return service(
        "default/web",
        VIP,
        ports,
        type="LoadBalancer",
        externalIPs=[EXTERNAL],
        ingress=[{"ip": BALANCER}],
        loadBalancerSourceRanges=["203.0.113.0/25"],
    )


def dns() -> Object:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    return service("default/dns", "10.96.7.8", ports, sessionAffinity="ClientIP")


def endpoints() -> tuple[Object, Object]:
    return (
        slice_of("default/web", at("a1"), at("b1"), ports=[{"name": "p", "port": 8080}]),
        slice_of("default/dns", at("a2"), ports=[{"name": "dns", "port": 8080, "protocol": "UDP"}]),
    )


@dataclass
class Inspected:
    """The node whose kernel has what the API's objects ask for, and the commands."""

    cluster: Cluster
    alone: Alone

    async def differing(self) -> tuple[Difference, ...]:
        """What `diff` says."""
        found: Comparison = await asyncio.to_thread(compare, "none", self.alone, "")
        (node,) = found.nodes
        assert (node.node, node.mode, found.same) == ("node1", "ipvs", not node.sections)
        return node.sections

    async def rules(self, name: str = "") -> tuple[tuple[Section, ...], tuple[Section, ...]]:
        """What `rules` says: what stands, and what of the Service `name` is missing."""
        (found,) = await asyncio.to_thread(standing_rules, "none", self.alone, "", name, "default")
        assert found.mode == "ipvs"
        return found.sections, found.missing

    async def explained(self, **question: Any) -> Explanation:
        """What `explain` says."""
        asked = Question("web", **question)
        (found,) = (await asyncio.to_thread(explain_connection, "none", self.alone, asked)).explanations
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Served, Alone]]:
    """An API server with the objects, and what the commands need to find it."""
    directory = tmp_path_factory.mktemp("api")
    access, configuration = directory / "kubeconfig", directory / "proxy.yaml"
    configuration.write_text(CONFIGURATION)
    async with cluster_api(directory) as api:
        authority, admin = api.authority.certificate_path, api.admin
        keys = (authority.read_text(), admin.cert.read_text(), admin.key.read_text())
        kubeconfig.write_context(access, "test", Credentials(api.url, *keys))
        await api.json("POST", "/api/v1/nodes", 201, json=NODE)
        for obj in (web(), dns()):
            path = "/api/v1/namespaces/default/services"
            made = await api.json("POST", path, 201, json=obj)
            if obj["status"]:
                place = f"{path}/{obj['metadata']['name']}/status"
                await api.json("PUT", place, 200, json={**made, "status": obj["status"]})
        for obj in endpoints():
            path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
            await api.json("POST", path, 201, json=obj)
        yield api, Alone(access, config=configuration)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def loaded(net: Net, served: tuple[Served, Alone]) -> AsyncIterator[Inspected]:
    api, alone = served
    cluster = Cluster(net)
    for obj in (await api.json("GET", "/api/v1/services"))["items"]:
        cluster.state.upsert_service(obj)
    for obj in (await api.json("GET", "/apis/discovery.k8s.io/v1/endpointslices"))["items"]:
        cluster.state.upsert_slice(obj)
    await cluster.serve()
    yield Inspected(cluster, replace(alone, netns=net.node.name))
    await cluster.taken_away()


@pytest_asyncio.fixture(loop_scope="module")
async def inspected(loaded: Inspected) -> Inspected:
    """With everything in the kernel, whatever the test before did to it."""
    await loaded.cluster.backend.sync(loaded.cluster.state, None)
    return loaded


def held(ns: Namespace) -> dict[str, tuple[str, list[str]]]:
    """What the kernel holds, as ipvsadm, ipset, ip and iptables-save say it: note and entries by section."""
    found: dict[str, tuple[str, list[str]]] = {}
    command = "ipvsadm -Sn; ipset save; ip -o address show dev kube-ipvs0; iptables-legacy-save"
    table, protocols = "", {"-t": "/TCP", "-u": "/UDP"}
    for line in run(["sh", "-c", command], ns=ns, check=True).stdout.decode().splitlines():
        words = line.split()
        match words:
            case ["-A", "-t" | "-u" as kind, place, "-s", *options]:
                found[place + protocols[kind]] = " ".join(options).replace("-p", "persistent"), []
            case ["-a", "-t" | "-u" as kind, place, "-r", target, "-m", "-w", weight]:
                found[place + protocols[kind]][1].append(f"{target} weight {weight}")
            case ["create", name, kind, *_]:
                found[f"set {name}"] = kind, []
            case ["add", name, entry]:
                found[f"set {name}"][1].append(entry)
            case [_, "kube-ipvs0", "inet", address, *_]:
                found.setdefault("device kube-ipvs0", ("dummy", []))[1].append(address.removesuffix("/32"))
            case [first] if first.startswith("*"):
                table = first[1:]
            case [first, "-", _] if first.startswith(":KUBE-"):
                found[f"{table} {first[1:]}"] = "", []
            case ["-A", chain, *_] if "KUBE-" in line:
                rule = line.removeprefix(f"-A {chain} ")
                found.setdefault(f"{table} {chain}", ("", []))[1].append(rule)
    return found


def as_held(sections: tuple[Section, ...]) -> dict[str, tuple[str, list[str]]]:
    return {item.name: (item.note, list(item.entries)) for item in sections}


def compared(found: dict[str, tuple[str, list[str]]]) -> dict[str, tuple[str, list[str]]]:
    """The order counts in chains only."""
    return {
        name: (note, entries if re.match("(nat|filter|mangle) ", name) else sorted(entries))
        for name, (note, entries) in found.items()
    }


async def test_rules_are_what_the_kernel_holds(inspected: Inspected) -> None:
    sections, _ = await inspected.rules()
    assert compared(as_held(sections)) == compared(held(inspected.cluster.net.node))
    assert await inspected.differing() == ()


async def test_rules_of_one_service(inspected: Inspected) -> None:
    everything = held(inspected.cluster.net.node)
    sections, missing = await inspected.rules("web")
    assert missing == ()
    for name, (note, entries) in as_held(sections).items():
        assert note == everything[name][0]
        assert set(entries) <= set(everything[name][1])
    text = repr(sections)
    assert all(word in text for word in (VIP, EXTERNAL, BALANCER, f"{NODE1}:{NODE_PORT}", A1, B1))
    assert "10.96.7.8" not in text, "of the other Service nothing is shown"

    run(["ipvsadm", "-d", "-t", f"{VIP}:{PORT}", "-r", B1], ns=inspected.cluster.net.node, check=True)
    sections, missing = await inspected.rules("web")
    assert as_held(missing) == {f"{VIP}:{PORT}/TCP": ("rr", [BOTH[1]])}
    assert as_held(sections)[f"{VIP}:{PORT}/TCP"] == ("rr", [BOTH[0]])


SERVER = f"{VIP}:{PORT}/TCP"
HARMS = {
    "a virtual server is gone": ([f"ipvsadm -D -t {VIP}:{PORT}"], Difference(SERVER, BOTH)),
    "a real server is gone": (
        [f"ipvsadm -d -t {BALANCER}:{PORT} -r {A1}"],
        Difference(f"{BALANCER}:{PORT}/TCP", BOTH[:1]),
    ),
    "a weight is another": (
        [f"ipvsadm -e -t {NODE1}:{NODE_PORT} -r {B1} -m -w 7"],
        Difference(f"{NODE1}:{NODE_PORT}/TCP", BOTH[1:], (f"{B1} weight 7",)),
    ),
    "the scheduler is another": ([f"ipvsadm -E -t {EXTERNAL}:{PORT} -s lc"], Difference(f"{EXTERNAL}:{PORT}/TCP")),
    "a virtual server too many": (
        ["ipvsadm -A -u 10.96.9.9:99 -s sh", "ipvsadm -a -u 10.96.9.9:99 -r 10.9.9.9:9 -m -w 1"],
        Difference("10.96.9.9:99/UDP", unwanted=("10.9.9.9:9 weight 1",)),
    ),
    "an entry of a set is gone": (
        [f"ipset del KUBE-CLUSTER-IP {VIP},tcp:{PORT}"],
        Difference("set KUBE-CLUSTER-IP", (f"{VIP},tcp:{PORT}",)),
    ),
    "an entry of a set too many": (
        ["ipset add KUBE-NODE-PORT-TCP 30999"],
        Difference("set KUBE-NODE-PORT-TCP", unwanted=("30999",)),
    ),
    "an address is gone": (
        [f"ip address del {BALANCER}/32 dev kube-ipvs0"],
        Difference("device kube-ipvs0", (BALANCER,)),
    ),
    "an address too many": (
        ["ip address add 10.96.9.9/32 dev kube-ipvs0"],
        Difference("device kube-ipvs0", unwanted=("10.96.9.9",)),
    ),
}  # fmt: skip


async def test_each_harm_is_seen_as_what_it_is_and_mended_by_the_next_sync(inspected: Inspected) -> None:
    cluster = inspected.cluster

    async def differing() -> tuple[Difference, ...]:
        return differences(await cluster.backend.wanted(cluster.state), await cluster.backend.standing())

    for what, (commands, expected) in HARMS.items():
        run(["sh", "-ec", "; ".join(commands)], ns=cluster.net.node, check=True)
        assert await differing() == (expected,), what
        assert (await cluster.backend.sync(cluster.state, None)).wrote, what
        assert await differing() == (), what


async def test_diff_names_all_harms_and_nothing_else(inspected: Inspected) -> None:
    commands = [command for commands, _ in HARMS.values() for command in commands]
    run(["sh", "-ec", "; ".join(commands)], ns=inspected.cluster.net.node, check=True)
    expected = {item.section: item for _, item in HARMS.values()}
    device = "device kube-ipvs0"
    expected[device] = Difference(device, (BALANCER,), ("10.96.9.9",))
    assert {item.section: item for item in await inspected.differing()} == expected
    await inspected.cluster.backend.sync(inspected.cluster.state, None)
    assert await inspected.differing() == ()


@pytest.mark.parametrize(
    ("caller", "question"),
    [
        ("a2", {"origin": "pod", "source": PODS["a2"][1]}),
        ("node1", {"origin": "node"}),
        ("outside", {"origin": "outside", "to": To.NODE_PORT}),
        ("outside", {"origin": "outside", "to": To.EXTERNAL_IP}),
        ("outside", {"origin": "outside", "to": To.LOAD_BALANCER, "source": "203.0.113.5"}),
        ("outside", {"origin": "outside", "to": To.LOAD_BALANCER, "source": "203.0.113.200"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
async def test_what_is_explained_comes_true(
    inspected: Inspected, caller: str, question: dict[str, Any]
) -> None:
    found = await inspected.explained(**question)
    assert (found.mode, found.missing) == ("ipvs", 0)
    assert all(step.standing for step in found.steps)
    source = question.get("source", "") if caller == "outside" else ""
    patience = 5.0 if found.delivered else 1.0
    replies = [
        inspected.cluster.net.call(caller, found.address, found.number, source=source, patience=patience)
        for _ in range(4 if found.delivered else 1)
    ]
    if not found.delivered:
        assert (str(found.outcome), replies) == ("dropped", ["drop"])
        return
    assert all(isinstance(reply, Reply) for reply in replies), replies
    addresses = {f"{PODS[reply.pod][1]}:8080" for reply in replies}  # type: ignore[union-attr]
    assert addresses == {item.target for item in found.endpoints if item.eligible}
    own = source or {"a2": PODS["a2"][1], "node1": found.address, "outside": "192.168.0.100"}[caller]
    assert {reply.seen != own for reply in replies} == {found.source_rewritten}  # type: ignore[union-attr]


async def test_what_is_missing_is_said_by_explain(inspected: Inspected) -> None:
    run(["ipvsadm", "-D", "-t", f"{VIP}:{PORT}"], ns=inspected.cluster.net.node, check=True)
    found = await inspected.explained(origin="pod", source=PODS["a2"][1])
    assert found.missing == 2
    assert not found.delivered
    assert {step.section for step in found.steps if not step.standing} == {SERVER}


async def test_the_command_itself(inspected: Inspected) -> None:
    run(["ipset", "del", "KUBE-CLUSTER-IP", f"{VIP},tcp:{PORT}"], ns=inspected.cluster.net.node, check=True)
    alone = inspected.alone
    options = ("--kubeconfig", str(alone.kubeconfig), "--netns", alone.netns, "--config", str(alone.config))
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "diff", *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"")
    assert output.decode().splitlines()[-2:] == ["  set KUBE-CLUSTER-IP", f"    - {VIP},tcp:{PORT}"]
