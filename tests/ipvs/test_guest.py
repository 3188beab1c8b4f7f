"""The kernel under these tests has what kube-proxy's IPVS mode is made of."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netkit.kernel import netns
from netkit.kernel.ledger import Ledger
from netkit.kernel.netns import Namespace
from netkit.kernel.process import run

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh")
VS_SYSCTLS = ("conntrack", "conn_reuse_mode", "expire_nodest_conn", "expire_quiescent_template")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Namespace]:
    ledger = Ledger(tmp_path, "ipvsguest")
    with netns.create("ipvs-guest-node", ledger) as space:
        run(["ip", "link", "set", "lo", "up"], ns=space, check=True)
        yield space
    netns.delete("ipvs-guest-node", ledger)


def test_every_scheduler_can_be_given_to_a_virtual_server(node: Namespace) -> None:
    lines = []
    for number, scheduler in enumerate(SCHEDULERS):
        lines.append(f"-A -t 10.96.0.{number + 1}:80 -s {scheduler}")
        lines.append(f"-a -t 10.96.0.{number + 1}:80 -r 10.244.0.5:8080 -m -w 1")
    run(["ipvsadm", "-R"], ns=node, input="".join(f"{line}\n" for line in lines).encode(), check=True)
    shown = run(["ipvsadm", "-Sn"], ns=node, check=True).stdout.decode().splitlines()
    assert sorted(line.split()[4] for line in shown if line.startswith("-A")) == sorted(SCHEDULERS)


@pytest.mark.parametrize(
    ("option", "address"), [("-u", "10.96.0.1"), ("-t", "[fd00::1]"), ("--sctp-service", "10.96.0.1")]
)
def test_protocols_and_families(node: Namespace, option: str, address: str) -> None:
    run(["ipvsadm", "-A", option, f"{address}:53", "-s", "rr"], ns=node, check=True)


def test_settings_of_ipvs_are_there_in_a_namespace(node: Namespace) -> None:
    with netns.entered(node):
        assert [name for name in VS_SYSCTLS if not Path(f"/proc/sys/net/ipv4/vs/{name}").exists()] == []


def test_sets_of_kube_proxy(node: Namespace) -> None:
    kinds = ("hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net", "bitmap:port range 0-65535")
    text = "".join(f"create probe{number} {kind}\n" for number, kind in enumerate(kinds))
    text += "add probe0 10.96.0.1,tcp:80\nadd probe2 10.96.0.1,udp:53,192.0.2.0/24\n"
    run(["ipset", "restore"], ns=node, input=text.encode(), check=True)
    assert run(["ipset", "test", "probe0", "10.96.0.1,tcp:80"], ns=node).returncode == 0
    assert run(["ipset", "test", "probe0", "10.96.0.1,tcp:81"], ns=node).returncode == 1


def test_dummy_interface_takes_service_addresses(node: Namespace) -> None:
    run(["ip", "link", "add", "kube-ipvs0", "type", "dummy"], ns=node, check=True)
    run(["ip", "addr", "add", "10.96.0.1/32", "dev", "kube-ipvs0"], ns=node, check=True)
    with netns.socket_in(node, socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("10.96.0.1", 80))


@pytest.mark.parametrize("version", ["", "6"])
def test_legacy_iptables_matches_sets_and_ipvs(node: Namespace, version: str) -> None:
    family = "inet6" if version else "inet"
    run(["ipset", "create", "probe", "hash:ip,port", "family", family], ns=node, check=True)
    rules = (
        "*nat\n"
        "-A PREROUTING -m set --match-set probe dst,dst -j MARK --set-xmark 0x4000/0x4000\n"
        "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully\n"
        "COMMIT\n*filter\n"
        "-A INPUT -m ipvs --vdir ORIGINAL -m conntrack --ctstate NEW -j ACCEPT\n"
        "-A INPUT -m addrtype --dst-type LOCAL -m comment --comment probe -j REJECT\n"
        "COMMIT\n"
    )
    run([f"ip{version}tables-legacy-restore"], ns=node, input=rules.encode(), check=True)
