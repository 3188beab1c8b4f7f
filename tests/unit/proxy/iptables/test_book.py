"""Documents for iptables-restore: they load, they are as short as they can be, and they end in the same rules."""

from ipaddress import ip_address

import pytest
from support.proxy import endpoint, feed, service, slice_of, state_of

from netkit.kernel.iptables_fake import FakeIPTables
from netkit.proxy.addresses import Family
from netkit.proxy.choice import NodeView
from netkit.proxy.iptables.book import RuleBook
from netkit.proxy.iptables.chains import JUMPS
from netkit.proxy.iptables.cleanup import cleanup_document
from netkit.proxy.iptables.document import Document
from netkit.proxy.iptables.rules import (
    INVALID_DROPPED,
    LARGE_CLUSTER_ENDPOINTS,
    LOCALHOST_ACCEPTED,
    IPTablesSettings,
)
from netkit.proxy.iptables.standing import Standing, read_standing
from netkit.proxy.settings import ProxySettings
from netkit.proxy.state import ProxyState

SETTINGS = IPTablesSettings(detector=ProxySettings(cluster_cidr="10.0.0.0/8").detector(Family.IPV4))
NODE = NodeView("here", "zone-a")
NODE_PORT = [{"name": "p80", "port": 80, "nodePort": 3001}]


def book(settings: IPTablesSettings = SETTINGS, **changes) -> RuleBook:
    return RuleBook(changes.pop("family", Family.IPV4), settings, NODE, **changes)


async def loaded(state: ProxyState, used: RuleBook | None = None) -> tuple[RuleBook, FakeIPTables]:
    used = used or book()
    kernel = FakeIPTables()
    assert await written(used, state, kernel)
    return used, kernel


async def written(used: RuleBook, state: ProxyState, kernel: FakeIPTables) -> str:
    """Load what a full document finds missing; its text, empty when nothing is."""
    document = used.full(state, read_standing(await kernel.save()))
    if document is None:
        return ""
    await kernel.restore(document.text)
    return document.text


def full(state: ProxyState, used: RuleBook | None = None) -> Document:
    document = (used or book()).full(state, Standing())
    assert document is not None
    return document


async def synced(used: RuleBook, state: ProxyState, kernel: FakeIPTables) -> str:
    """Load the partial document of what changed; its text, empty when there was nothing to write."""
    document = used.partial(state, state.collect())
    state.mark_synced()
    if document is None:
        return ""
    await kernel.restore(document.text)
    return document.text


def rules_of(kernel: FakeIPTables) -> dict[str, dict[str, list[str]]]:
    return {
        name: {chain: list(rules) for chain, rules in sorted(table.items())}
        for name, table in kernel.tables.items()
    }


async def test_jumps_are_where_users_know_them() -> None:
    _, kernel = await loaded(state_of())
    order = [
        rule.split(" -j ")[1] if " -j " in rule else rule[3:] for rule in kernel.rules("filter", "INPUT")
    ]
    assert order == ["KUBE-FIREWALL", "KUBE-PROXY-FIREWALL", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"]
    order = [rule.split(" -j ")[1] for rule in kernel.rules("filter", "FORWARD")]
    assert order == ["KUBE-PROXY-FIREWALL", "KUBE-FORWARD", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"]
    assert kernel.rules("nat", "POSTROUTING") == [
        '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'
    ]
    for table in ("mangle", "nat", "filter"):
        assert kernel.rules(table, "KUBE-PROXY-CANARY") == []


async def test_the_mark_is_cleared_before_masquerading() -> None:
    _, kernel = await loaded(state_of())
    assert kernel.rules("nat", "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    assert kernel.rules("nat", "KUBE-MARK-MASQ") == ["-j MARK --set-xmark 0x4000/0x4000"]


async def test_settings_show_in_the_fixed_rules() -> None:
    other = IPTablesSettings(
        masquerade_bit=15, random_fully=False, tcp_be_liberal=True, localhost_node_ports=False
    )
    _, kernel = await loaded(state_of(), book(other))
    assert kernel.rules("nat", "KUBE-MARK-MASQ") == ["-j MARK --set-xmark 0x8000/0x8000"]
    assert kernel.rules("nat", "KUBE-POSTROUTING")[-1].endswith("-j MASQUERADE")
    assert "INVALID" not in str(kernel)
    assert kernel.rules("filter", "KUBE-FIREWALL") == []
    assert kernel.rules("nat", "KUBE-SERVICES")[-1].startswith("! -d 127.0.0.0/8 ")


@pytest.mark.parametrize(
    ("ips", "expected"),
    [
        (None, [""]),
        (("192.168.0.2", "127.0.0.1"), ["-d 192.168.0.2/32 ", "-d 127.0.0.1/32 "]),
        (("192.168.0.2",), ["-d 192.168.0.2/32 "]),
    ],
)
async def test_node_port_addresses(ips: tuple[str, ...] | None, expected: list[str]) -> None:
    addresses = None if ips is None else tuple(ip_address(text) for text in ips)
    _, kernel = await loaded(state_of(), book(node_port_ips=addresses))
    found = [line for line in kernel.rules("nat", "KUBE-SERVICES") if "KUBE-NODEPORTS" in line]
    assert [line.split("-m ")[0] for line in found] == expected
    assert ["addrtype --dst-type LOCAL" in line for line in found] == [not where for where in expected]


async def test_loopback_addresses_are_left_out_when_not_wanted() -> None:
    quiet = IPTablesSettings(localhost_node_ports=False)
    _, kernel = await loaded(state_of(), book(quiet, node_port_ips=(ip_address("127.0.0.1"),)))
    assert kernel.rules("nat", "KUBE-SERVICES") == []


async def test_ipv6_never_answers_on_loopback() -> None:
    quiet = IPTablesSettings(localhost_node_ports=False)
    _, kernel = await loaded(state_of(family=Family.IPV6), book(quiet, family=Family.IPV6))
    assert "127.0.0" not in str(kernel)
    assert kernel.rules("nat", "KUBE-SERVICES")[-1].startswith("! -d ::1/128 ")


async def test_the_node_port_rule_stays_last() -> None:
    state = state_of(service())
    used, kernel = await loaded(state)
    feed(
        state, slice_of("ns1/svc1", "10.0.0.1"), service("ns2/new", "172.30.0.9", externalIPs=["192.168.0.2"])
    )
    feed(state, slice_of("ns2/new", "10.0.0.2"))
    await synced(used, state, kernel)
    found = kernel.rules("nat", "KUBE-SERVICES")
    assert [("KUBE-NODEPORTS" in rule) for rule in found] == [False, False, False, True]


async def test_the_older_service_keeps_an_address_both_claim() -> None:
    young = service("a/young", "172.30.0.1", externalIPs=["1.2.3.4"], created="2026-02-01T00:00:00Z")
    old = service("z/old", "172.30.0.2", externalIPs=["1.2.3.4"], created="2026-01-01T00:00:00Z")
    state = state_of(young, slice_of("a/young", "10.0.0.1"))
    used, kernel = await loaded(state)
    feed(state, old, slice_of("z/old", "10.0.0.2"))
    await synced(used, state, kernel)
    claims = [rule for rule in kernel.rules("nat", "KUBE-SERVICES") if "1.2.3.4" in rule]
    assert ["z/old" in rule for rule in claims] == [True, False]


async def test_a_service_made_anew_changes_its_place_in_shared_chains() -> None:
    state = state_of(
        service(externalIPs=["1.2.3.4"]), service("ns2/b", "172.30.0.42", externalIPs=["1.2.3.4"])
    )
    used, kernel = await loaded(state)
    state.mark_synced()
    feed(state, service(externalIPs=["1.2.3.4"], created="2026-01-02T00:00:00Z"))
    await synced(used, state, kernel)
    _, fresh = await loaded(state)
    assert rules_of(kernel) == rules_of(fresh)


async def test_nothing_changed_nothing_written() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    used, kernel = await loaded(state)
    state.mark_synced()
    assert await synced(used, state, kernel) == ""
    feed(state, slice_of("ns1/svc1", endpoint("10.0.0.1", "there", zones=["zone-b"])))
    assert state.pending
    assert await synced(used, state, kernel) == "", "another node, another hint, but the same rules"


async def test_one_endpoint_more_writes_that_services_chains_only() -> None:
    objects = [service(f"ns/svc{n}", f"172.30.1.{n}") for n in range(20)]
    objects += [slice_of(f"ns/svc{n}", f"10.0.1.{n}") for n in range(20)]
    state = state_of(*objects)
    used, kernel = await loaded(state)
    feed(state, slice_of("ns/svc7", "10.0.1.7", "10.0.2.7"))
    text = await synced(used, state, kernel)
    assert "*filter" not in text
    assert "KUBE-SERVICES" not in text
    declared = [line for line in text.splitlines() if line.startswith(":")]
    assert len(declared) == 2, "the balancing chain and the new endpoint's; the old endpoint's is the same"
    assert sum(f"10.0.1.{n}:" in text for n in range(20)) == 1


async def test_losing_the_last_endpoint_turns_to_refusal_and_back() -> None:
    state = state_of(service(ports=NODE_PORT, type="NodePort"), slice_of("ns1/svc1", "10.0.0.1"))
    used, kernel = await loaded(state)
    before = rules_of(kernel)
    feed(state, slice_of("ns1/svc1"))
    await synced(used, state, kernel)
    assert kernel.rules("filter", "KUBE-SERVICES")[0].endswith("REJECT --reject-with icmp-port-unreachable")
    assert [chain for chain in kernel.tables["nat"] if chain.startswith(("KUBE-S", "KUBE-E"))] == [
        "KUBE-SERVICES"
    ]
    feed(state, slice_of("ns1/svc1", "10.0.0.1"))
    await synced(used, state, kernel)
    assert rules_of(kernel) == before


async def test_a_restarted_book_changes_nothing_and_removes_what_is_stale() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    _, kernel = await loaded(
        state_of(service(), slice_of("ns1/svc1", "10.0.0.1"), service("ns2/gone", "172.30.0.9"))
    )
    _, kernel = await loaded(state)
    expected = rules_of(kernel)
    feed(state, service("ns2/gone", "172.30.0.9"), slice_of("ns2/gone", "10.0.0.9"))
    state.collect()
    assert await written(book(), state, kernel)
    assert rules_of(kernel) != expected
    state.delete_service("ns2", "gone")
    state.collect()
    text = await written(book(), state, kernel)
    assert rules_of(kernel) == expected
    assert "-X KUBE-SVC-" in text
    assert "10.0.0.1" not in text, "what stands already is left alone"
    assert await written(book(), state, kernel) == ""


async def test_what_somebody_changed_is_mended_and_nothing_else() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    used, kernel = await loaded(state)
    expected = rules_of(kernel)
    kernel.tables["nat"]["KUBE-MARK-MASQ"].clear()
    kernel.tables["nat"]["PREROUTING"].clear()
    kernel.tables["nat"]["KUBE-SERVICES"].insert(0, "-j ACCEPT")
    assert not used.intact(read_standing(await kernel.save()))
    text = await written(used, state, kernel)
    assert rules_of(kernel) == expected
    assert "KUBE-SEP" not in text
    assert "*filter" not in text
    assert used.intact(read_standing(await kernel.save()))


async def test_rules_spelled_otherwise_are_the_same_rules() -> None:
    """As another version of iptables-save prints them."""
    state = state_of(service(sessionAffinity="ClientIP"), slice_of("ns1/svc1", "10.0.0.1", "10.0.0.2"))
    used, kernel = await loaded(state)
    saved = await kernel.save()
    other = saved.replace('"ns1/svc1:p80"', "ns1/svc1:p80").replace("/32 ", " ").replace(" --rsource", "")
    assert other != saved
    assert used.intact(read_standing(other))
    assert not used.intact(read_standing(other.replace("10.0.0.2", "10.0.0.3")))


async def test_the_firewall_of_a_kubelet_is_left_alone() -> None:
    kernel = FakeIPTables()
    await kernel.restore(
        "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n"
        "-A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n-A KUBE-FIREWALL -j THEIRS\nCOMMIT\n".replace(
            "-j THEIRS", "-s 9.9.9.9/32 -j DROP"
        )
    )
    quiet = book(IPTablesSettings(localhost_node_ports=False))
    await written(quiet, state_of(), kernel)
    assert kernel.rules("filter", "KUBE-FIREWALL") == ["-s 9.9.9.9/32 -j DROP"]
    assert kernel.rules("filter", "INPUT").count("-j KUBE-FIREWALL") == 1
    await kernel.restore(cleanup_document(await kernel.save()))
    assert kernel.rules("filter", "KUBE-FIREWALL") == ["-s 9.9.9.9/32 -j DROP"]
    assert kernel.rules("filter", "INPUT") == ["-j KUBE-FIREWALL"]
    assert "KUBE-SERVICES" not in str(kernel)


async def test_packets_are_counted_where_the_kernel_has_counters() -> None:
    state = state_of(service(ports=NODE_PORT, type="NodePort"), slice_of("ns1/svc1", "10.0.0.1"))
    both = frozenset({INVALID_DROPPED, LOCALHOST_ACCEPTED})
    _, kernel = await loaded(state, book(IPTablesSettings(counters=both)))
    assert kernel.rules("filter", "KUBE-FORWARD")[0] == (
        "-m conntrack --ctstate INVALID -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP"
    )
    counted, plain = kernel.rules("nat", "KUBE-NODEPORTS")
    assert counted.startswith("-d 127.0.0.0/8 -p tcp ")
    assert "-m nfacct --nfacct-name  localhost_nps_accepted_pkts -j KUBE-EXT-" in counted
    assert "nfacct" not in plain
    silent = IPTablesSettings(counters=both, localhost_node_ports=False)
    _, kernel = await loaded(state, book(silent))
    assert len(kernel.rules("nat", "KUBE-NODEPORTS")) == 1


async def test_marks_are_written_first_and_stay_first_in_their_chains() -> None:
    """The order of lines in a document is for the program's sake, that of rules in a chain for the packets'."""
    state = state_of(
        service(ports=NODE_PORT, type="NodePort", externalTrafficPolicy="Local"),
        slice_of("ns1/svc1", endpoint("10.0.0.1", "here"), "10.0.0.2"),
    )
    _, kernel = await loaded(state)
    nat = full(state).text.partition("*nat")[2].splitlines()
    marks = [line.endswith("-j KUBE-MARK-MASQ") for line in nat if line.startswith("-A ")]
    assert marks[:3] == [True, True, True]
    (external,) = [chain for chain in kernel.tables["nat"] if chain.startswith("KUBE-EXT-")]
    assert [rule.rsplit(" ", 1)[1][:8] for rule in kernel.rules("nat", external)] == [
        "KUBE-SVC",
        "KUBE-MAR",
        "KUBE-SVC",
        "KUBE-SVL",
    ]


async def test_other_peoples_rules_survive_sync_and_cleanup() -> None:
    kernel = FakeIPTables()
    foreign = (
        "*nat\n:FLANNEL-POSTRTG - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-ROUTER-SNAT - [0:0]\n"
        "-A POSTROUTING -j KUBE-ROUTER-SNAT\n-A POSTROUTING -j FLANNEL-POSTRTG\n"
        "-A FLANNEL-POSTRTG -s 10.0.0.0/8 -j MASQUERADE\nCOMMIT\n"
    )
    await kernel.restore(foreign)
    before = rules_of(kernel)["nat"]
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    await written(book(), state, kernel)
    assert kernel.rules("nat", "FLANNEL-POSTRTG") == before["FLANNEL-POSTRTG"]
    await kernel.restore(cleanup_document(await kernel.save()))
    assert rules_of(kernel)["nat"] == before
    assert "KUBE-S" not in str(kernel)
    assert cleanup_document(await kernel.save()) == ""


def test_standing_reads_what_iptables_save_prints() -> None:
    saved = (
        "# Generated by iptables-save\n*filter\n:INPUT ACCEPT [12:34]\n:KUBE-FIREWALL - [0:0]\n"
        "-A INPUT -m conntrack --ctstate NEW -m comment --comment "
        '"kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL\n'
        "-A INPUT -j KUBE-FIREWALL\n-A INPUT -s 1.2.3.4/32 -j KUBE-NODEPORTS\nCOMMIT\n"
        "*nat\n:KUBE-SVC-XPGD46QRK7WJZT7O - [0:0]\n:KUBE-SERVICES - [0:0]\nCOMMIT\n"
    )
    standing = read_standing(saved)
    assert standing.service_chains == {"KUBE-SVC-XPGD46QRK7WJZT7O"}
    assert {(jump.source, jump.target) for jump in standing.jumps} == {
        ("INPUT", "KUBE-PROXY-FIREWALL"),
        ("INPUT", "KUBE-FIREWALL"),
    }
    everything = Standing(jumps=frozenset(JUMPS))
    document = book().full(state_of(), everything)
    assert document is not None
    assert "-I " not in document.text


def test_comments_of_endpoints_go_when_the_cluster_is_large() -> None:
    many = [slice_of("ns1/svc1", *[f"10.1.{n // 200}.{n % 200}" for n in range(LARGE_CLUSTER_ENDPOINTS + 1)])]
    state = state_of(service(), *many)
    used = book()
    text = full(state, used).text
    assert " -> " not in text
    assert "ns1/svc1:p80 cluster IP" in text
    assert not used.outgrown(state)
    feed(state, slice_of("ns1/svc1", "10.0.0.1"))
    state.collect()
    assert used.outgrown(state), "comments are due again, on all rules"
    assert " -> " in full(state, used).text


async def test_rules_are_counted() -> None:
    state = state_of(service(), slice_of("ns1/svc1", "10.0.0.1"))
    used, kernel = await loaded(state)

    def counted(table: str) -> int:
        rules = kernel.tables[table]
        return sum(len(found) for chain, found in rules.items() if chain.startswith("KUBE-"))

    assert used.rule_totals == {"filter": counted("filter"), "nat": counted("nat")}
    assert full(state).rules == {"mangle": 0, **used.rule_totals}
    feed(state, slice_of("ns1/svc1", "10.0.0.1", "10.0.0.2"), service("ns2/other", "172.30.0.7"))
    await synced(used, state, kernel)
    assert used.rule_totals == {"filter": counted("filter"), "nat": counted("nat")}
