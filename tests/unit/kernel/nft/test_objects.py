"""Objects to messages and back, ranges, templates, and messages applied in memory."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.errors import KernelError, Unsupported
from netkit.kernel.nft import datatypes, refusals, wire
from netkit.kernel.nft.expressions import Code, Dnat, Immediate, Lookup, Numgen, Verdict
from netkit.kernel.nft.fake import FakeNftTable
from netkit.kernel.nft.objects import (
    Chain,
    Element,
    Hook,
    SetSpec,
    TableWriter,
    chain_of,
    elements_of,
    encode_element,
    ranges,
    rule_of,
    set_of,
    spans_of,
)
from netkit.kernel.nft.replay import Replay
from netkit.kernel.nft.template import Template
from netkit.kernel.nft.text import element_texts, set_note
from netkit.kernel.nft.wire import Elements, u32_attribute

WRITER = TableWriter(wire.NFPROTO_IPV4, "t")
SERVICE = (datatypes.IPV4_ADDR, datatypes.INET_PROTO, datatypes.INET_SERVICE)
KEY = b"\x0a\0\0\1\x06\0\0\0\0\x50\0\0"


def body(message: bytes) -> bytes:
    return message[wire.HEADER_BYTES :]


@pytest.mark.parametrize(
    "chain",
    [
        Chain("plain"),
        Chain("noted", "what it is for"),
        Chain("base", hook=Hook("nat", "output", -100)),
    ],
)
def test_chains(chain: Chain) -> None:
    assert chain_of(body(WRITER.add_chain(chain))) == ("t", chain)


@pytest.mark.parametrize(
    "spec",
    [
        SetSpec("addresses", (datatypes.IPV4_ADDR,), comment="Active ClusterIPs"),
        SetSpec("map", SERVICE, verdicts=True),
        SetSpec("data", (*SERVICE, datatypes.MARK), (datatypes.IPV6_ADDR, datatypes.INET_SERVICE)),
        SetSpec("clients", (datatypes.IPV6_ADDR,), dynamic=True, timeouts=True, timeout=10800, size=65535),
        SetSpec("__x", (datatypes.IPV4_ADDR,), interval=True, anonymous=True, size=3, signature=b"12345678"),
    ],
)
def test_sets(spec: SetSpec) -> None:
    assert set_of(body(WRITER.add_set(spec, 7))) == spec


def test_rules_and_elements() -> None:
    rule = WRITER.add_rule("c", [Verdict(Code.DROP)], "why")
    assert rule_of(body(rule))[0] == "c"
    assert rule_of(body(rule))[1].comment == "why"
    elements = [
        Element(KEY, Verdict(Code.GOTO, "c")),
        Element(KEY, Verdict(Code.DROP), "ns/name:port"),
        Element(KEY, b"\1\2\3\4"),
        Element(KEY, end=KEY[:-4] + b"\0\x60\0\0"),
        Element(KEY, ends=True),
    ]
    (message,) = WRITER.add_elements("m", elements)
    assert elements_of(body(message)) == ("m", elements)


@given(
    st.binary(min_size=1, max_size=40), st.sampled_from([None, b"\1\2\3\4", b"%b", Verdict(Code.GOTO, "c%d")])
)
def test_frequent_elements_read_back_and_look_like_the_rare_ones(
    key: bytes, data: bytes | Verdict | None
) -> None:
    frequent, rare = Element(key, data), Element(key, data, ends=True)
    (message,) = WRITER.add_elements("m", [frequent])
    assert elements_of(body(message)) == ("m", [frequent])
    flag = u32_attribute(Elements.FLAGS, 1)
    assert encode_element(rare).replace(flag, b"", 1)[2:] == encode_element(frequent)[2:]


def test_many_elements_take_several_messages() -> None:
    elements = [Element(n.to_bytes(4, "big"), Verdict(Code.GOTO, "x" * 200)) for n in range(1000)]
    found = WRITER.add_elements("m", elements)
    assert len(found) > 3
    assert [element for message in found for element in elements_of(body(message))[1]] == elements
    with pytest.raises(ValueError, match="too long"):
        wire.attribute(1, bytes(70_000))


SPANS = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda pair: (min(pair), max(pair))), max_size=5
)


@given(SPANS)
def test_ranges_hold_what_the_spans_hold(spans: list[tuple[int, int]]) -> None:
    found = spans_of(ranges(spans, 1))
    held = {number for first, last in found for number in range(first, last + 1)}
    assert held == {number for first, last in spans for number in range(first, last + 1)}
    assert all(one[1] + 1 < two[0] for one, two in pairwise(found))


def test_elements_as_text() -> None:
    spec = SetSpec("m", SERVICE, verdicts=True)
    elements = [Element(KEY, Verdict(Code.GOTO, "c"), "note")]
    assert element_texts(spec, elements) == ['10.0.0.1 . tcp . 80 comment "note" : goto c']
    ranged = SetSpec("r", (datatypes.IPV4_ADDR, datatypes.IPV4_ADDR), interval=True)
    low, high = b"\x0a\0\0\1\xcb\0\x71\0", b"\x0a\0\0\1\xcb\0\x71\x7f"
    assert element_texts(ranged, [Element(low, end=high)]) == ["10.0.0.1 . 203.0.113.0/25"]
    clients = SetSpec("c", (datatypes.IPV4_ADDR,), dynamic=True, timeouts=True, timeout=10800, size=65535)
    assert set_note(clients) == "type ipv4_addr; size 65535; flags dynamic,timeout; timeout 3h"
    assert datatypes.duration(93784) == "1d2h3m4s"
    assert datatypes.duration(0) == "0s"


@given(st.text("abc-./", min_size=1, max_size=90), st.binary(min_size=4, max_size=4), st.integers(0, 65535))
def test_templates_give_what_they_are_made_from(name: str, address: bytes, port: int) -> None:
    def build(chain: str, address: bytes, port: bytes) -> bytes:
        jump = Verdict(Code.JUMP, chain)
        return WRITER.add_rule(chain, [Immediate(address), Immediate(port, 4), Dnat(2, 0, 4), jump], "100%")

    filled = TEMPLATE.fill(name.encode(), address, port.to_bytes(2, "big"))
    assert filled == build(name, address, port.to_bytes(2, "big"))


TEMPLATE = Template(
    lambda v: WRITER.add_rule(
        v["chain"].decode(),
        [
            Immediate(v["address"]),
            Immediate(v["port"], 4),
            Dnat(2, 0, 4),
            Verdict(Code.JUMP, v["chain"].decode()),
        ],
        "100%",
    ),
    ("chain", "address", "port"),
)


def test_templates_refuse_values_that_are_transformed() -> None:
    with pytest.raises(ValueError, match="as it is"):
        Template(lambda v: v["x"].upper(), ("x",)).fill(b"abc")
    with pytest.raises(ValueError, match="length"):
        Template(lambda v: v["x"].replace(b"b", b"bb"), ("x",)).fill(b"abc")


BASE = (WRITER.add_table("rules"), WRITER.add_chain(Chain("c")), WRITER.add_chain(Chain("d")))


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        ([WRITER.add_chain(Chain("c"))], errno.ENOENT, "nft add chain ip t c"),
        ([*BASE, WRITER.add_rule("x", [])], errno.ENOENT, "nft add rule ip t x"),
        ([*BASE, WRITER.add_rule("c", [Verdict(Code.JUMP, "x")])], errno.EBUSY, "leads to chain x"),
        ([*BASE, WRITER.add_rule("c", [Lookup("x")])], errno.EBUSY, "uses set x"),
        (
            [*BASE, WRITER.add_rule("c", [Verdict(Code.JUMP, "d")]), WRITER.delete_chain("d")],
            errno.EBUSY,
            "d",
        ),
        ([*BASE, WRITER.add_rule("c", []), WRITER.delete_chain("c")], errno.EBUSY, "nft delete chain ip t c"),
        ([*BASE, *WRITER.add_elements("s", [Element(b"\0\0\0\1")])], errno.ENOENT, "nft add element ip t s"),
        (
            [*BASE, WRITER.add_set(SetSpec("s", SERVICE)), *WRITER.add_elements("s", [Element(b"\0\0\0\1")])],
            errno.EINVAL,
            "nft add element ip t s",
        ),
        (
            [*BASE, WRITER.add_set(SetSpec("s", SERVICE)), *WRITER.delete_elements("s", [Element(KEY)])],
            errno.ENOENT,
            "nft delete element ip t s",
        ),
        (
            [*BASE, WRITER.add_set(SetSpec("s", SERVICE)), WRITER.add_set(SetSpec("s", (datatypes.MARK,)))],
            errno.EEXIST,
            "nft add set ip t s",
        ),
    ],
)
def test_the_fake_refuses_as_the_kernel_does(messages: Sequence[bytes], code: int, words: str) -> None:
    table = FakeNftTable(table="t")
    with pytest.raises(KernelError) as caught:
        table.commit(messages)
    assert caught.value.errno == code
    assert words in str(caught.value)
    assert table.contents is None


def test_anonymous_sets_go_with_their_rule() -> None:
    spec = SetSpec("__map%d", (datatypes.INTEGER,), verdicts=True, size=1, anonymous=True)
    replay = Replay()
    replay.apply(
        [
            *BASE,
            WRITER.add_set(spec, 5),
            *WRITER.add_elements("__map%d", [Element(bytes(4), Verdict(Code.GOTO, "d"))], 5),
            WRITER.add_rule("c", [Numgen(1), Lookup("__map%d", verdict=True, set_id=5)]),
        ]
    )
    assert replay.contents is not None
    assert list(replay.contents.sets) == ["__map0"]
    assert len(replay.contents.elements["__map0"]) == 1
    replay.apply([WRITER.flush_chain("c")])
    assert not replay.contents.sets


def test_refusals_name_the_object_and_what_the_kernel_lacks() -> None:
    rule = WRITER.add_rule("c", [Immediate(b"\0\0\0\0"), Immediate(b"\0\0", 4), Dnat(2, 0, 4)])
    found = refusals.refusal(errno.ENOENT, rule, "node1")
    assert isinstance(found, Unsupported)
    assert "nft_nat" in found.hint
    chain = WRITER.add_chain(Chain("n", hook=Hook("nat", "output", -100)))
    assert "nft_chain_nat" in str(refusals.refusal(errno.ENOENT, chain, ""))
    plain = refusals.refusal(errno.EBUSY, WRITER.delete_chain("c"), "node1")
    assert str(plain) == "node1: nft delete chain ip t c: Device or resource busy"
    assert not isinstance(plain, Unsupported)
    assert refusals.refusal(errno.EPERM, b"", "node1").is_permission
