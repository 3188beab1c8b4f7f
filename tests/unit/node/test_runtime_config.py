from __future__ import annotations

from typing import Any

import pytest

from netkit.node.podspec.runtime_config import BadBandwidth, runtime_config
from netkit.podnet.pod import NO_WISHES, PortMapping


def pod(*ports: dict[str, Any], annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "ports": list(ports)}]
    return {
        "metadata": {"name": "web", "annotations": annotations or {}},
        "spec": {"containers": containers, **spec},
    }


def test_a_pod_without_host_ports_wishes_nothing() -> None:
    assert runtime_config(pod({"containerPort": 80})) == NO_WISHES


def test_host_ports_of_containers_and_sidecars_count_once() -> None:
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 9, "hostPort": 99}]}
    start = {"name": "i", "ports": [{"containerPort": 7, "hostPort": 77}]}
    web = {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}
    dns = {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"}
    assert runtime_config(pod(web, dns, web, initContainers=[start, sidecar])).ports == (
        PortMapping(99, 9), PortMapping(8080, 80), PortMapping(53, 53, "udp", "127.0.0.1"),
    )  # fmt: skip


def test_bandwidths_are_bits_a_second() -> None:
    limits = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1Ki"}
    found = runtime_config(pod(annotations=limits))
    assert (found.ingress_rate, found.egress_rate) == (10_000_000, 1024)


@pytest.mark.parametrize("text", ["fast", "10", "2P"])
def test_what_is_no_bandwidth_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadBandwidth, match=r"kubernetes\.io/ingress-bandwidth: "):
        runtime_config(pod(annotations={"kubernetes.io/ingress-bandwidth": text}))
