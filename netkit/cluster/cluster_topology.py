"""The topology of a cluster that is up: written by `up`, read by the commands that come later."""

from __future__ import annotations

import json

from netkit.cluster.profile import ClusterFacts, Profile
from netkit.cluster.topology import Topology
from netkit.cluster.topology_document import document
from netkit.cluster.topology_file import parse
from netkit.cluster.topology_layout import gateway, path_mtu
from netkit.kernel import file_write
from netkit.podnet.underlay import ONE_LINK, Underlay

_FILE = "topology.json"


def write(profile: Profile, topology: Topology) -> None:
    """Keep the topology, with all its addresses, in the cluster's state directory."""
    file_write.replace(profile.directory / _FILE, json.dumps(document(topology), indent=2) + "\n")


def read(profile: Profile) -> Topology:
    """The topology of the cluster. Raises NoSuchCluster, ClusterError."""
    profile.facts()
    return parse(json.loads((profile.directory / _FILE).read_text(encoding="utf-8")))


def underlay(topology: Topology, facts: ClusterFacts, node: str) -> Underlay:
    """What node `node` has to know of the network between the nodes."""
    machine = next((each for each in topology.machines if each.name == node), None)
    if machine is None:
        return ONE_LINK
    return Underlay(gateway(topology, machine), path_mtu(topology, machine), facts.routes == "bgp")
