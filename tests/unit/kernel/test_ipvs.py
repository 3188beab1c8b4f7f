"""Messages of the IPVS driver: what they say, and that a fake that reads their bytes ends up with the same."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ipvs import key, target

from netkit.kernel import ipvs
from netkit.kernel.errors import KernelError
from netkit.kernel.ipvs_fake import FakeIPVS
from netkit.kernel.ipvs_values import (
    SCHEDULERS,
    SOURCE_HASH_FALLBACK,
    SOURCE_HASH_PORT,
    RealServer,
    ServerKey,
    Target,
    Timeouts,
    Transport,
    VirtualServer,
)

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORTS = st.integers(1, 65535)
KEYS = st.builds(ServerKey, ADDRESSES, PORTS, st.sampled_from(Transport))
HERE = key("10.96.0.1:80")


@given(KEYS, st.sampled_from(SCHEDULERS), st.integers(0, 86400), st.sampled_from([0, 8, 16, 24, 32]))
def test_a_server_comes_out_as_it_went_in(here: ServerKey, scheduler: str, seconds: int, flags: int) -> None:
    fake = FakeIPVS()
    server = VirtualServer(here, scheduler, seconds, flags)
    fake.apply(ipvs.server_add(server))
    assert fake.servers() == [server]
    assert fake.server(here) == server


@given(KEYS, PORTS, st.integers(0, 65535), st.data())
def test_a_real_server_comes_out_as_it_went_in(
    here: ServerKey, port: int, weight: int, data: st.DataObject
) -> None:
    who = Target(data.draw(st.ip_addresses(v=here.address.version)), port)
    fake = FakeIPVS()
    fake.apply(ipvs.server_add(VirtualServer(here)), ipvs.real_add(here, who, weight))
    assert fake.real_servers(here) == [RealServer(who, weight)]
    fake.apply(ipvs.real_set(here, who, 7))
    assert fake.real_servers(here) == [RealServer(who, 7)]
    fake.apply(ipvs.real_delete(here, who))
    assert fake.real_servers(here) == []


@pytest.mark.parametrize(
    ("message", "command"),
    [
        (ipvs.server_add(VirtualServer(HERE, "rr", 600)), "ipvsadm -A -t 10.96.0.1:80 -s rr persistent 600"),
        (
            ipvs.server_set(VirtualServer(key("[fd00::1]:53", Transport.UDP), "mh", 0, SOURCE_HASH_PORT)),
            "ipvsadm -E -u [fd00::1]:53 -s mh (mh-port)",
        ),
        (
            ipvs.server_add(VirtualServer(HERE, "sh", 0, SOURCE_HASH_PORT | SOURCE_HASH_FALLBACK)),
            "ipvsadm -A -t 10.96.0.1:80 -s sh (sh-fallback,sh-port)",
        ),
        (ipvs.server_delete(key("10.96.0.1:9", Transport.SCTP)), "ipvsadm -D --sctp-service 10.96.0.1:9"),
        (ipvs.real_add(HERE, target("10.1.0.1:8080")), "ipvsadm -a -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 1"),
        (
            ipvs.real_set(HERE, target("10.1.0.1:8080"), 0),
            "ipvsadm -e -t 10.96.0.1:80 -r 10.1.0.1:8080 -m -w 0",
        ),
        (ipvs.real_delete(HERE, target("10.1.0.1:8080")), "ipvsadm -d -t 10.96.0.1:80 -r 10.1.0.1:8080"),
        (ipvs.timeouts_set(Timeouts(1, 2, 3)), "ipvsadm --set 1 2 3"),
        (ipvs.flush(), "ipvsadm -C"),
    ],
)
def test_messages_print_as_commands(message: ipvs.Message, command: str) -> None:
    assert str(message) == command


def test_the_fake_refuses_what_the_kernel_refuses() -> None:
    fake = FakeIPVS(schedulers=("rr",))
    fake.apply(ipvs.server_add(VirtualServer(HERE)))
    who = target("10.1.0.1:80")
    for message, code in (
        (ipvs.server_add(VirtualServer(HERE)), errno.EEXIST),
        (ipvs.server_set(VirtualServer(key("10.96.0.2:80"))), errno.ESRCH),
        (ipvs.server_add(VirtualServer(key("10.96.0.2:80"), "lc")), errno.ENOENT),
        (ipvs.real_set(HERE, who, 1), errno.ENOENT),
        (ipvs.real_add(key("10.96.0.2:80"), who), errno.ESRCH),
    ):
        with pytest.raises(KernelError) as caught:
            fake.apply(message)
        assert caught.value.errno == code
    fake.apply(ipvs.real_delete(HERE, who), ipvs.server_delete(key("10.96.0.2:80")))
    fake.apply(ipvs.timeouts_set(Timeouts(udp=5)))
    assert fake.timeouts() == Timeouts(900, 120, 5)
    fake.apply(ipvs.flush())
    assert str(fake) == ""
