"""All chains of the iptables mode, rule by rule, against what kube-proxy writes for the same objects."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from support.proxy import endpoint, service, slice_of
from unit.proxy.upstream import iptables_tables as facts
from unit.proxy.upstream.iptables_tables import (
    DROP_INVALID,
    DROP_INVALID_COUNTED,
    FIREWALL,
    FORWARD,
    FORWARD_LIBERAL,
    FRAME,
    LAST_OF_SERVICES,
    OBJECTS,
    OVERALL,
    POSTROUTING,
    PROBABILITIES,
    meaning,
)
from unit.proxy.upstream.world import NODE, IPTablesProxier, tcp

from netkit.kernel.errors import CommandFailed
from netkit.proxy.addresses import Family
from netkit.proxy.iptables.chains import is_service_chain
from netkit.proxy.iptables.rules import COUNTERS

EVERYWHERE = {"node_port_addresses": ()}


def ours(proxier: IPTablesProxier) -> dict[str, tuple[str, ...]]:
    """The chains of ours in the kernel, but for the canaries."""
    return {
        f"{table} {chain}": tuple(rules)
        for table, chains in proxier.tables.tables.items()
        for chain, rules in chains.items()
        if chain.startswith("KUBE-") and chain != "KUBE-PROXY-CANARY"
    }


def same(found: Mapping[str, tuple[str, ...]], wanted: Mapping[str, tuple[str, ...]]) -> None:
    assert sorted(found) == sorted(wanted)
    for name, rules in wanted.items():
        assert [meaning(rule) for rule in found[name]] == [meaning(rule) for rule in rules], name


async def test_all_chains() -> None:
    proxier = IPTablesProxier(**EVERYWHERE)
    proxier.tables.random_fully = False
    proxier.kernel.counters = frozenset(COUNTERS)
    proxier.add(*OBJECTS)
    report = await proxier.sync()
    counted = FRAME.replace(DROP_INVALID, DROP_INVALID_COUNTED)
    same(ours(proxier), facts.read(counted, OVERALL))
    for table in ("filter", "nat"):
        total = sum(len(rules) for name, rules in ours(proxier).items() if name.startswith(table))
        assert report.rules_total[table] == total


async def test_all_chains_where_the_kernel_has_no_counters() -> None:
    proxier = IPTablesProxier(**EVERYWHERE)
    proxier.tables.random_fully = False
    proxier.add(*OBJECTS)
    await proxier.sync()
    wanted = facts.read(FRAME, OVERALL)
    name = "nat KUBE-NODEPORTS"
    wanted[name] = tuple(rule for rule in wanted[name] if not facts.NO_COUNTERS.match(rule))
    same(ours(proxier), wanted)


@pytest.mark.parametrize(
    ("liberal", "counted", "expected"),
    [
        (False, False, FORWARD),
        (False, True, FORWARD.replace(DROP_INVALID, DROP_INVALID_COUNTED)),
        (True, False, FORWARD_LIBERAL),
    ],
)
async def test_invalid_packets(liberal: bool, counted: bool, expected: str) -> None:
    proxier = IPTablesProxier()
    proxier.kernel.liberal = liberal
    proxier.kernel.counters = frozenset(COUNTERS) if counted else frozenset()
    await proxier.sync()
    wanted = facts.read(expected)
    same({name: ours(proxier)[name] for name in wanted}, wanted)


@pytest.mark.parametrize("random_fully", [False, True])
async def test_masquerading(random_fully: bool) -> None:
    proxier = IPTablesProxier()
    proxier.tables.random_fully = random_fully
    await proxier.sync()
    masquerade = "MASQUERADE --random-fully" if random_fully else "MASQUERADE"
    wanted = facts.read(POSTROUTING.replace("MASQUERADE", masquerade))
    same({name: ours(proxier)[name] for name in wanted}, wanted)


@pytest.mark.parametrize(
    ("family", "localhost", "addresses", "guarded"),
    [
        (Family.IPV4, True, (), True),
        (Family.IPV4, False, (), False),
        (Family.IPV4, False, ("192.168.0.0/24", "127.0.0.1/32"), False),
        (Family.IPV4, False, ("192.168.0.0/24", "192.168.1.0/24", "2001:db8::/64"), False),
        (Family.IPV6, True, (), False),
        (Family.IPV6, False, (), False),
        (Family.IPV6, False, ("192.168.0.0/24", "192.168.1.0/24", "2001:db8::/64"), False),
    ],
)
async def test_loopback_is_guarded_where_node_ports_answer_on_it(
    family: Family, localhost: bool, addresses: tuple[str, ...], guarded: bool
) -> None:
    proxier = IPTablesProxier(family, localhost_node_ports=localhost, node_port_addresses=addresses)
    proxier.add(service("ns1/svc1", "172.30.0.41", tcp(80, 3001), type="NodePort"))
    await proxier.sync()
    found = {name: rules for name, rules in ours(proxier).items() if name == "filter KUBE-FIREWALL" and rules}
    same(found, facts.read(FIREWALL) if guarded else {})
    assert proxier.kernel.localnet == guarded


@pytest.mark.parametrize("count", [number for number in PROBABILITIES if number <= 1000])
async def test_chances(count: int) -> None:
    proxier = IPTablesProxier()
    proxier.add(service("ns1/svc1", "172.30.0.41", tcp()))
    proxier.add(
        slice_of("ns1/svc1", *(f"10.0.{number // 250}.{number % 250 + 1}" for number in range(count)))
    )
    await proxier.sync()
    chosen = [rule for rule in ours(proxier)["nat KUBE-SVC-XPGD46QRK7WJZT7O"] if "KUBE-SEP-" in rule]
    chances = [float(rule.partition("--probability ")[2].split(" ")[0]) for rule in chosen[:-1]]
    assert len(chosen) == count
    assert "--probability" not in chosen[-1]
    assert chances[0] == pytest.approx(PROBABILITIES[count], abs=1e-9)
    assert chances == sorted(chances)


SVC1, SVC2 = "KUBE-SVC-XPGD46QRK7WJZT7O", "KUBE-SVC-2VJB64SDSIJUP5T6"
SVC3, SVC4 = "KUBE-SVC-X27LE4BHSL4DOUIK", "KUBE-SVC-4SW47YFZTEDKD3PK"
EP1, EP2, EP4 = "KUBE-SEP-SNQ3ZNILQDEJNDQO", "KUBE-SEP-UHEGFW77JX3KXTOV", "KUBE-SEP-AYCN5HPXMIRJNJXU"
EP3_1, EP3_2, EP3_3 = "KUBE-SEP-BSWRHOQ77KEXZLNL", "KUBE-SEP-DKCFIS26GWF2WLWC", "KUBE-SEP-JVVZVJ7BSEPPRNBS"


class Steps:
    """Syncs one after the other; of each, which Services' chains were written and deleted."""

    def __init__(self) -> None:
        self.proxier = IPTablesProxier(**EVERYWHERE)
        self.rules = 0

    async def step(self, written: set[str], deleted: set[str], more_rules: int) -> None:
        """A sync that writes these chains of Services, deletes these, and leaves so many more rules in nat.

        kube-proxy writes all chains of a Service that changed, we leave out those that stay as they are.
        """
        documents = self.proxier.tables.documents
        before, standing = len(documents), ours(self.proxier)
        report = await self.proxier.sync()
        found = ours(self.proxier)
        written = {chain for chain in written if found[f"nat {chain}"] != standing.get(f"nat {chain}")}
        lines = "".join(documents[before:]).splitlines()
        declared = {line[1:].split(" ")[0] for line in lines if line.startswith(":")}
        filled = {line.split(" ")[1] for line in lines if line.startswith("-A ")}
        assert {chain for chain in declared if is_service_chain(chain)} == written | deleted
        assert {chain for chain in filled if is_service_chain(chain)} == written
        assert {line.removeprefix("-X ") for line in lines if line.startswith("-X ")} == deleted
        assert report.rules_total["nat"] == self.rules + more_rules
        self.rules += more_rules


async def test_a_sync_writes_the_chains_of_what_changed() -> None:
    steps = Steps()
    add, remove = steps.proxier.add, steps.proxier.remove
    ports2 = tcp(8080, name="p8080")
    svc2 = service("ns2/svc2", "172.30.0.42", ports2)
    add(service("ns1/svc1", "172.30.0.41", tcp()), svc2)
    add(slice_of("ns1/svc1", "10.0.1.1"), slice_of("ns2/svc2", "10.0.2.1", ports=ports2))
    # Two services of five rules each, and five that are always there.
    await steps.step({SVC1, SVC2, EP1, EP2}, set(), 15)

    add(service("ns3/svc3", "172.30.0.43", tcp()), slice_of("ns3/svc3", "10.0.3.1"))
    await steps.step({SVC3, EP3_1}, set(), 5)

    remove(svc2)
    await steps.step(set(), {SVC2, EP2}, -5)

    svc4 = service("ns4/svc4", "172.30.0.44", tcp())
    add(svc4)
    await steps.step(set(), set(), 0)
    refused = '-m comment --comment "ns4/svc4:p80 has no endpoints" -m tcp -p tcp -d 172.30.0.44 --dport 80 -j REJECT'
    assert list(map(meaning, ours(steps.proxier)["filter KUBE-SERVICES"])) == [meaning(refused)]
    add(slice_of("ns4/svc4", "10.0.4.1"))
    await steps.step({SVC4, EP4}, set(), 5)

    add(slice_of("ns3/svc3", "10.0.3.2"))
    await steps.step({SVC3, EP3_2}, {EP3_1}, 0)
    add(slice_of("ns3/svc3", "10.0.3.2", "10.0.3.3"))
    await steps.step({SVC3, EP3_2, EP3_3}, set(), 3)
    await steps.step(set(), set(), 0)

    # What a partial sync cannot do, a full one does: here a jump that nobody of ours made holds on to a chain.
    tables = steps.proxier.tables
    whole = ours(steps.proxier)[f"nat {SVC3}"]
    tables.tables["nat"][SVC3].append(f"-j {EP4}")
    remove(svc4)
    with pytest.raises(CommandFailed):
        await steps.proxier.sync()
    assert EP4 in tables.tables["nat"]
    steps.proxier.start_over()
    await steps.step({SVC1, EP1, SVC3, EP3_2, EP3_3}, {SVC4, EP4}, -5)
    assert ours(steps.proxier)[f"nat {SVC3}"] == whole


async def test_the_way_to_node_ports_is_the_last_rule() -> None:
    proxier = IPTablesProxier(**EVERYWHERE)
    proxier.add(*OBJECTS, slice_of("ns6/svc6", endpoint("10.180.0.6", NODE)))
    await proxier.sync()
    assert meaning(ours(proxier)["nat KUBE-SERVICES"][-1]) == meaning(LAST_OF_SERVICES)


async def test_no_comments_for_endpoints_of_a_large_cluster() -> None:
    """From 1001 endpoints on. Upstream leaves the rules of other Services until its next full sync; ours go along."""

    def destinations() -> list[str]:
        return [rule for rules in ours(proxier).values() for rule in rules if "-j DNAT" in rule]

    proxier = IPTablesProxier(masquerade_all=True)
    for number in range(2):
        name, addresses = f"ns{number}/svc{number}", [f"10.{number}.{n % 256}.{n // 256}" for n in range(499)]
        proxier.add(service(name, f"172.30.0.4{number}", tcp()), slice_of(name, *addresses))
    await proxier.sync()
    assert [" --comment " in rule for rule in destinations()] == [True] * 998
    proxier.add(service("ns3/svc3", "172.30.0.43", tcp(8081, name="p8081")))
    proxier.add(
        slice_of("ns3/svc3", "203.0.113.4", "203.0.113.8", "203.0.113.12", ports=tcp(8081, name="p8081"))
    )
    await proxier.sync()
    assert [" --comment " in rule for rule in destinations()] == [False] * 1001
    same(
        {"nat": tuple(ours(proxier)["nat KUBE-SEP-RUVVH7YV3PHQBDOS"][1:])},
        {"nat": ("-m tcp -p tcp -j DNAT --to-destination 203.0.113.4:8081",)},
    )
