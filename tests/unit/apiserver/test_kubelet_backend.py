"""Where a node's kubelet listens, as its status has it."""

from __future__ import annotations

import pytest

from controlplane.apiserver.streams import KUBELET_PORT, kubelet_backend
from controlplane.errors import Object, Unclassified


def _node(*addresses: Object, port: int | None = None) -> Object:
    endpoint = {"kubeletEndpoint": {"Port": port}} if port else {}
    return {"status": {"addresses": list(addresses), "daemonEndpoints": endpoint}}


def test_an_internal_address_comes_before_the_others() -> None:
    node = _node(
        {"type": "Hostname", "address": "node1"}, {"type": "InternalIP", "address": "172.18.0.2"}, port=10255
    )
    backend = kubelet_backend(node, None)
    assert (backend.address, backend.port) == ("172.18.0.2", 10255)


def test_entries_without_type_or_address_are_passed_over() -> None:
    node = _node({"address": "172.18.0.9"}, {"type": "InternalIP"}, {"type": "Hostname", "address": "node1"})
    assert str(kubelet_backend(node, None)) == f"node1:{KUBELET_PORT}"


def test_a_node_without_addresses_is_named_so() -> None:
    with pytest.raises(Unclassified, match="no preferred addresses found"):
        kubelet_backend(_node({"type": "InternalIP"}), None)
