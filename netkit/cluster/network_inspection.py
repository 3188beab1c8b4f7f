"""What `netkit network show` and `check` say: what nodes' kernels hold of the pod network, and what is wrong with it.

Gathers the API's Nodes, the nodes' files and kernels, and leaves all judgement to `netkit.podnet`. Changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from controlplane.errors import Object
from controlplane.resources.catalog import NODE
from netkit.cluster import cluster_topology
from netkit.cluster.access import admin_client
from netkit.cluster.cluster_topology import underlay
from netkit.cluster.errors import ClusterError
from netkit.cluster.network_choice import ChoiceFile
from netkit.cluster.profile import ClusterFacts, MachineFacts, Profile
from netkit.cluster.router_inspection import RouterLook
from netkit.cluster.router_inspection import looks as router_looks
from netkit.cluster.topology import Role, Topology
from netkit.cni import inspection
from netkit.cni.cache import Cache
from netkit.cni.chain import Runtime
from netkit.cni.network import cache_directory
from netkit.kernel import wireguard
from netkit.kernel.iptables import IPTables
from netkit.kernel.netns import open_namespace
from netkit.podnet import device
from netkit.podnet.attach import Attach
from netkit.podnet.entries import Difference, Entry, Facts, Kind, differences, expected, learned
from netkit.podnet.ipam import Leases
from netkit.podnet.modes import VXLAN, NetworkMode, Setting
from netkit.podnet.network import LEASE_FILE
from netkit.podnet.paths import NoWay
from netkit.podnet.peer import Peer, peers, pod_range
from netkit.podnet.standing import external, standing
from netkit.podnet.tunnels import PLACE
from netkit.podnet.wireguard import DEVICE
from netkit.podnet.wireguard_key import read_key
from netkit.policy.backend import standing_tables
from netkit.policy.census import NO_POLICIES, Census, census

_LOOKS = 4
_PAUSE_SECONDS = 0.3
_API_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NodeView:
    """The pod network of a node as its kernel has it. Entries without a purpose are nobody's."""

    node: str
    mode: str
    address: str
    underlay: str
    underlay_mtu: int
    pod_range: str
    pod_mtu: int
    pods: int
    attach: str
    entries: tuple[Entry, ...]
    policies: Census = NO_POLICIES


@dataclass(frozen=True, slots=True)
class NodeDifferences:
    """Where a node's (or a router's) kernel differs from what it should be; as it should be when `entries` is empty."""

    node: str
    mode: str
    checked: int
    entries: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    same: bool
    nodes: tuple[NodeDifferences, ...]


@dataclass(frozen=True, slots=True)
class _Look:
    """One node at one moment."""

    facts: Facts
    wanted: list[Entry]
    refused: tuple[NoWay, ...]
    found: list[Entry]
    pods: int
    attach: str
    told: tuple[Difference, ...] = ()
    encryption: str = ""

    def differences(self) -> list[Difference]:
        """What is not as it should be, and what plug-ins of others say against pods of theirs."""
        return [*differences(self.wanted, self.found, self.refused), *self.told]

    @property
    def name(self) -> str:
        return self.facts.node

    @property
    def mode(self) -> str:
        """With who encrypts, if somebody does."""
        setting = str(self.facts.setting)
        return f"{setting} ({self.encryption})" if self.encryption else setting


def show(name: str, node: str = "") -> list[NodeView]:
    """All nodes, or one. Raises ClusterError, KernelError, StatusError."""
    profile = Profile(name)
    looks = asyncio.run(_look(profile, node))
    spaces = {machine.name: machine.namespace for machine in profile.facts().machines}
    return [_view(look, _policies(spaces[look.name])) for look in looks]


def check(name: str, node: str = "") -> Comparison:
    """Compare all nodes, or one. What differs only for a moment, while an agent writes it, is no difference."""
    return asyncio.run(_check(Profile(name), node))


async def _check(profile: Profile, node: str) -> Comparison:
    stable: dict[tuple[str, Kind, str], Difference] = {}
    looks: list[_Look | RouterLook] = []
    for number in range(_LOOKS):
        if number:
            await asyncio.sleep(_PAUSE_SECONDS)
        routers = await _look_at_routers(profile) if not node else []
        looks = [*await _look(profile, node, ask=True), *routers]
        seen = {(look.name, item.kind, item.key): item for look in looks for item in look.differences()}
        stable = {key: item for key, item in seen.items() if not number or key in stable}
        if not stable:
            break
    nodes = tuple(
        NodeDifferences(
            look.name,
            look.mode,
            len(look.wanted),
            tuple(item for (owner, _, _), item in stable.items() if owner == look.name),
        )
        for look in looks
    )
    return Comparison(not stable, nodes)


async def _look(profile: Profile, node: str, *, ask: bool = False) -> list[_Look]:
    """The nodes as they are now. `ask` plug-ins of others for what they think of their pods."""
    facts = profile.facts()
    machines = _chosen(facts, node)
    nodes = await _nodes(profile, facts)
    topology = cluster_topology.read(profile)
    choice = ChoiceFile(profile.directory).read()
    setting = choice.setting if choice is not None else VXLAN
    return [await _look_at(profile, facts, topology, machine, nodes, setting, ask) for machine in machines]


async def _look_at_routers(profile: Profile) -> list[RouterLook]:
    facts, topology = profile.facts(), cluster_topology.read(profile)
    if not topology.of(Role.ROUTER):
        return []
    return router_looks(profile, facts, topology, await _nodes(profile, facts))


async def _nodes(profile: Profile, facts: ClusterFacts) -> list[Object]:
    client = admin_client(profile, facts.server)
    try:
        async with asyncio.timeout(_API_SECONDS):
            return (await client.list(NODE)).items
    finally:
        await client.close()


async def _look_at(
    profile: Profile,
    cluster: ClusterFacts,
    topology: Topology,
    machine: MachineFacts,
    nodes: list[Object],
    setting: Setting,
    ask: bool,
) -> _Look:
    own = next((item for item in nodes if item["metadata"]["name"] == machine.name), None)
    own_range = pod_range(own) if own is not None else None
    if own_range is None:
        raise ClusterError(
            f"node {machine.name} has no pod range yet", f"look at it: netkit status -p {cluster.name}"
        )
    state = profile.node(machine.name)
    address, cidr = IPv4Address(machine.address), IPv4Network(cluster.pod_subnet)
    if setting.mode is NetworkMode.EXTERNAL:
        return await asyncio.to_thread(
            _look_at_others, state, cluster, machine, own_range, setting, peers(nodes, machine.name), ask
        )
    attach = Attach(cluster.attach)
    with open_namespace(machine.namespace) as ns:
        # The pods are read first: one that comes now would be missed in the kernel, not in the list.
        pods = Leases(state / LEASE_FILE).all()
        iptables = IPTables(ns, lock_file=state / "xtables.lock")
        key = read_key(state)
        facts = Facts(
            machine.name, address, own_range, cidr, setting, device.uplink(ns, address), peers(nodes, machine.name),
            pods, iptables.random_fully, attach, underlay(topology, cluster, machine.name),
            key.public if key is not None else "",
        )  # fmt: skip
        wanted, refused = expected(facts)
        encryption, encrypted = wireguard.read(ns, DEVICE, state / PLACE) or ("", None)
        found = await standing(ns, iptables, cidr, [lease.netns for lease in pods], attach, encrypted)
        wanted = [*wanted, *learned(facts, found)]
        return _Look(facts, wanted, refused, found, len(pods), attach, encryption=encryption)


def _look_at_others(
    state: Path, cluster: ClusterFacts, machine: MachineFacts, own_range: IPv4Network, setting: Setting,
    joined: tuple[Peer, ...], ask: bool,
) -> _Look:  # fmt: skip
    """A node whose pods are made by plug-ins of others."""
    cidr, address = IPv4Network(cluster.pod_subnet), IPv4Address(machine.address)
    with open_namespace(machine.namespace) as ns:
        pods = [cached for cached in Cache(cache_directory(state)).all() if cached.result is not None]
        uplink = device.uplink(ns, address)
        facts = Facts(machine.name, address, own_range, cidr, setting, uplink, joined)
        wanted, refused = expected(facts)
        found = [*external(ns, cidr, routes=setting.node_routes), *inspection.standing(pods)]
        runtime = Runtime(ns, cluster.cni_path, {"XTABLES_LOCKFILE": str(state / "xtables.lock")})
        told = tuple(inspection.refusals(pods, runtime)) if ask else ()
        wanted = [*wanted, *inspection.expected(pods)]
        return _Look(facts, wanted, refused, found, len(pods), cluster.attach, told)


def _policies(namespace: str) -> Census:
    with open_namespace(namespace) as ns:
        return census(standing_tables(ns))


def _view(look: _Look, policies: Census) -> NodeView:
    purposes = {entry.identity: entry.purpose for entry in look.wanted}
    facts = look.facts
    return NodeView(
        node=facts.node,
        mode=look.mode,
        address=str(facts.address),
        underlay=facts.uplink.name,
        underlay_mtu=facts.uplink.mtu,
        pod_range=str(facts.pod_range),
        pod_mtu=facts.mtu,
        pods=look.pods,
        attach=look.attach,
        entries=tuple(
            replace(entry, purpose=purposes.get(entry.identity, ""))
            for kind in Kind
            for entry in look.found
            if entry.kind is kind
        ),
        policies=policies,
    )


def _chosen(facts: ClusterFacts, node: str) -> list[MachineFacts]:
    known = [machine for machine in facts.machines if machine.role == "node"]
    found = [machine for machine in known if node in ("", machine.name)]
    if not found:
        names = ", ".join(machine.name for machine in known)
        raise ClusterError(f"cluster {facts.name} has no node {node}", f"there are: {names}")
    return found
