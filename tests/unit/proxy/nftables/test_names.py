"""Names of kube-proxy, which users see and grep for."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.proxy.endpoints import Endpoint
from netkit.proxy.nftables import names
from netkit.proxy.services import Protocol, ServicePortName


@pytest.mark.parametrize(
    ("name", "base"),
    [
        (ServicePortName("ns1", "svc1", "p80", Protocol.TCP), "ULMVA6XW-ns1/svc1/tcp/p80"),
        (ServicePortName("ns2", "svc2", "p80", Protocol.TCP), "42NFTM6N-ns2/svc2/tcp/p80"),
        (ServicePortName("ns5", "svc5", "p80", Protocol.TCP), "HVFWP5L3-ns5/svc5/tcp/p80"),
    ],
)
def test_service_names(name: ServicePortName, base: str) -> None:
    assert names.port_base(name) == base


def test_endpoint_names() -> None:
    port = names.port_text(ServicePortName("ns1", "svc1", "p80", Protocol.TCP))
    four = names.endpoint_base(port, Endpoint(ip_address("10.180.0.1"), 80))
    assert four == "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"
    six = names.endpoint_base(port, Endpoint(ip_address("fd00:10::5"), 80))
    assert six.endswith("-ns1/svc1/tcp/p80__fd00.10..5/80")


@given(st.text(min_size=1, max_size=300))
def test_hashes_are_base32_and_names_fit(text: str) -> None:
    name = names.hashed(text)
    assert name[:8] == base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:8]
    assert len(name) <= 240
    assert name == f"{name[:8]}-{text}" or (len(name) == 240 and name.endswith("..."))


def test_only_services_have_a_slash() -> None:
    assert names.is_service_chain("service-ULMVA6XW-ns1/svc1/tcp/p80")
    assert not names.is_service_chain(names.SERVICES)
