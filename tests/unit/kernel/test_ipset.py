"""Messages of the ipset driver: what they say, and that a fake that reads their bytes ends up with the same."""

from __future__ import annotations

import errno
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel import ipset
from netkit.kernel.errors import KernelError
from netkit.kernel.ipset import SetType
from netkit.kernel.ipset_fake import FakeIPSet

PROTOCOLS = st.sampled_from(["tcp", "udp", "sctp"])
PORTS = st.integers(0, 65535)


@st.composite
def entries(draw: st.DrawFn) -> tuple[SetType, int, str]:
    """A type, an address family, and an entry as ipset writes it."""
    kind, version = draw(st.sampled_from(SetType)), draw(st.sampled_from([4, 6]))
    address = st.ip_addresses(v=version)
    port = f"{draw(PROTOCOLS)}:{draw(PORTS)}"
    match kind:
        case SetType.BITMAP_PORT:
            return kind, version, str(draw(PORTS))
        case SetType.HASH_IP:
            return kind, version, str(draw(address))
        case SetType.HASH_IP_PORT:
            return kind, version, f"{draw(address)},{port}"
        case SetType.HASH_IP_PORT_IP:
            return kind, version, f"{draw(address)},{port},{draw(address)}"
        case SetType.HASH_IP_PORT_NET:
            length = draw(st.integers(1, 32 if version == 4 else 128))
            network = ip_network(f"{draw(address)}/{length}", strict=False)
            return kind, version, f"{draw(address)},{port},{network}"


@given(entries())
def test_an_entry_comes_out_as_it_went_in(made: tuple[SetType, int, str]) -> None:
    kind, version, entry = made
    fake = FakeIPSet()
    fake.apply(ipset.set_create("ONE", kind, version), ipset.entry_add("ONE", kind, entry))
    assert fake.entries("ONE") == {entry}
    assert fake.headers()["ONE"].size == 1
    fake.apply(ipset.entry_delete("ONE", kind, entry))
    assert fake.entries("ONE") == frozenset()


@pytest.mark.parametrize(
    ("message", "command"),
    [
        (ipset.set_create("S", SetType.HASH_IP_PORT), "ipset create S hash:ip,port family inet -exist"),
        (ipset.set_create("S", SetType.HASH_IP, 6), "ipset create S hash:ip family inet6 -exist"),
        (ipset.set_create("S", SetType.BITMAP_PORT, 6), "ipset create S bitmap:port range 0-65535 -exist"),
        (ipset.entry_add("S", SetType.HASH_IP, "10.0.0.1"), "ipset add S 10.0.0.1 -exist"),
        (ipset.entry_delete("S", SetType.BITMAP_PORT, "80"), "ipset del S 80 -exist"),
        (ipset.set_flush("S"), "ipset flush S"),
        (ipset.set_destroy("S"), "ipset destroy S"),
    ],
)
def test_messages_print_as_commands(message: ipset.Message, command: str) -> None:
    assert str(message) == command


def test_types_know_their_modules() -> None:
    assert SetType.HASH_IP_PORT_NET.module == "ip_set_hash_ipportnet"
    assert SetType.BITMAP_PORT.module == "ip_set_bitmap_port"


def test_the_fake_refuses_what_the_kernel_refuses() -> None:
    fake = FakeIPSet()
    fake.apply(ipset.set_create("S", SetType.HASH_IP), ipset.set_create("S", SetType.HASH_IP))
    fake.used.add("S")
    for message, code in (
        (ipset.set_create("S", SetType.HASH_IP_PORT), errno.EEXIST),
        (ipset.set_destroy("S"), errno.EBUSY),
        (ipset.entry_add("T", SetType.HASH_IP, "10.0.0.1"), errno.ENOENT),
    ):
        with pytest.raises(KernelError) as caught:
            fake.apply(message)
        assert caught.value.errno == code
    fake.apply(ipset.set_destroy("T"))
    with pytest.raises(ValueError, match="longer"):
        ipset.set_create("S" * 32, SetType.HASH_IP)
