"""Expressions to bytes and back, and rules as nft prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.nft import datatypes, wire
from netkit.kernel.nft.expressions import (
    FIB_DADDR,
    FIB_SADDR,
    Bitwise,
    Cmp,
    Code,
    Ct,
    CtKey,
    Dnat,
    Dynset,
    DynsetOp,
    Expression,
    FibType,
    Header,
    Immediate,
    Lookup,
    Masquerade,
    Meta,
    MetaKey,
    MetaSet,
    Numgen,
    Op,
    Other,
    Payload,
    Reject,
    Verdict,
    decode,
    encode,
)
from netkit.kernel.nft.objects import Contents, Element, Rule, SetSpec
from netkit.kernel.nft.text import rule_text

SLOTS = st.integers(0, 15)
NAMES = st.text("abcdefghij-./0123456789", min_size=1, max_size=60)
DATA = st.binary(min_size=1, max_size=16)
U32 = st.integers(0, 2**32 - 1)
EXPRESSIONS = st.one_of(
    st.builds(Payload, st.sampled_from(Header), st.integers(0, 60), st.integers(1, 16), SLOTS),
    st.builds(Meta, st.sampled_from(MetaKey), SLOTS),
    st.builds(MetaSet, st.sampled_from(MetaKey), SLOTS),
    st.builds(Ct, st.sampled_from(CtKey), SLOTS),
    st.builds(FibType, st.sampled_from([FIB_SADDR, FIB_DADDR]), SLOTS),
    st.builds(Cmp, st.sampled_from(Op), DATA, SLOTS),
    st.builds(Bitwise, st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), SLOTS),
    st.builds(Immediate, DATA, SLOTS),
    st.builds(Verdict, st.sampled_from([Code.JUMP, Code.GOTO]), NAMES),
    st.builds(Verdict, st.sampled_from([Code.DROP, Code.ACCEPT, Code.RETURN])),
    st.builds(Lookup, NAMES, SLOTS, st.none(), st.booleans(), st.booleans(), U32),
    st.builds(Lookup, NAMES, SLOTS, SLOTS),
    st.builds(Numgen, U32, SLOTS),
    st.builds(Dnat, st.sampled_from([2, 10]), SLOTS, SLOTS),
    st.builds(Masquerade),
    st.builds(Reject, st.integers(0, 255)),
    st.builds(Dynset, st.sampled_from(DynsetOp), NAMES, SLOTS, st.none() | SLOTS, st.integers(0, 2**60)),
)


@given(st.lists(EXPRESSIONS, max_size=6))
def test_what_is_encoded_is_decoded(expressions: list[Expression]) -> None:
    assert list(decode(encode(expressions))) == expressions


def test_foreign_expressions_are_kept() -> None:
    counter = Other("counter", wire.u64_attribute(1, 5))
    assert decode(encode([counter])) == (counter,)
    left_rotation = encode([Bitwise(b"\1\0\0\0", b"\0\0\0\0")]).replace(
        wire.u32_attribute(6, 0), wire.u32_attribute(6, 1)
    )
    (found,) = decode(left_rotation)
    assert isinstance(found, Other)
    assert found.name == "bitwise"
    assert encode([found]) == left_rotation


SADDR = Payload(Header.NETWORK, 12, 4)
DADDR = Payload(Header.NETWORK, 16, 4)
CALLED = (DADDR, Meta(MetaKey.L4PROTO, 1), Payload(Header.TRANSPORT, 2, 2, 2))
SERVICE = (datatypes.IPV4_ADDR, datatypes.INET_PROTO, datatypes.INET_SERVICE)
CONTENTS = Contents(
    sets={
        "addresses": SetSpec("addresses", (datatypes.IPV4_ADDR,)),
        "verdicts": SetSpec("verdicts", SERVICE, verdicts=True),
        "endpoints": SetSpec(
            "endpoints", (*SERVICE, datatypes.MARK), (datatypes.IPV4_ADDR, datatypes.INET_SERVICE)
        ),
        "clients": SetSpec("clients", (datatypes.IPV4_ADDR,), dynamic=True),
        "__0": SetSpec("__0", (datatypes.INTEGER,), verdicts=True, anonymous=True),
        "__1": SetSpec("__1", (datatypes.IPV4_ADDR,), interval=True, anonymous=True),
    },
    elements={
        "__0": [
            Element(b"\1\0\0\0", Verdict(Code.GOTO, "two")),
            Element(b"\0\0\0\0", Verdict(Code.GOTO, "one")),
        ],
        "__1": [
            Element(b"\0\0\0\0", ends=True),
            Element(b"\x0a\0\0\0"),
            Element(b"\x0b\0\0\0", ends=True),
            Element(b"\xac\x1e\0\0"),
            Element(b"\xac\x1e\0\x05", ends=True),
        ],
    },
)
MARK = b"\0\x40\0\0"


@pytest.mark.parametrize(
    ("expressions", "text"),
    [
        ((SADDR, Cmp(Op.EQ, b"\x0a\xb4\0\1"), Verdict(Code.DROP)), "ip saddr 10.180.0.1 drop"),
        (
            (Payload(Header.NETWORK, 12, 1), Cmp(Op.NEQ, b"\x0a"), Verdict(Code.JUMP, "a")),
            "ip saddr != 10.0.0.0/8 jump a",
        ),
        (
            (SADDR, Bitwise(b"\xff\xf0\0\0", bytes(4)), Cmp(Op.EQ, b"\x0a\x10\0\0"), Verdict(Code.RETURN)),
            "ip saddr 10.16.0.0/12 return",
        ),
        (
            (Meta(MetaKey.IIFNAME), Cmp(Op.EQ, b"cni0" + bytes(12)), Masquerade()),
            'iifname "cni0" masquerade fully-random',
        ),
        ((Meta(MetaKey.IIFNAME), Cmp(Op.NEQ, b"veth"), Reject(3)), 'iifname != "veth*" reject'),
        ((Ct(CtKey.STATE), Bitwise(b"\x08\0\0\0", bytes(4)), Cmp(Op.NEQ, bytes(4))), "ct state new"),
        ((Ct(CtKey.STATUS), Bitwise(b"\x20\0\0\0", bytes(4)), Cmp(Op.NEQ, bytes(4))), "ct status dnat"),
        (
            (Meta(MetaKey.MARK), Bitwise(MARK, bytes(4)), Cmp(Op.EQ, bytes(4))),
            "meta mark & 0x00004000 == 0x00000000",
        ),
        (
            (Meta(MetaKey.MARK), Bitwise(b"\xff\xbf\xff\xff", MARK), MetaSet(MetaKey.MARK)),
            "meta mark set meta mark | 0x00004000",
        ),
        (
            (Meta(MetaKey.MARK), Bitwise(b"\xff\xff\xff\xff", MARK), MetaSet(MetaKey.MARK)),
            "meta mark set meta mark ^ 0x00004000",
        ),
        ((FibType(FIB_DADDR), Cmp(Op.EQ, b"\2\0\0\0")), "fib daddr type local"),
        ((DADDR, Lookup("addresses", inverted=True)), "ip daddr != @addresses"),
        ((*CALLED, Lookup("verdicts", verdict=True)), "ip daddr . meta l4proto . th dport vmap @verdicts"),
        ((Numgen(2), Lookup("__0", verdict=True)), "numgen random mod 2 vmap { 0 : goto one, 1 : goto two }"),
        ((DADDR, Lookup("__1")), "ip daddr { 10.0.0.0/8, 172.30.0.0-172.30.0.4 }"),
        ((SADDR, Dynset(DynsetOp.UPDATE, "clients")), "update @clients { ip saddr }"),
        (
            (SADDR, Dynset(DynsetOp.ADD, "clients", timeout=90_000)),
            "add @clients { ip saddr timeout 1m30s }",
        ),
        (
            (
                Meta(MetaKey.L4PROTO),
                Cmp(Op.EQ, b"\x06"),
                Immediate(b"\x0a\xb4\0\1"),
                Immediate(b"\0\x50", 4),
                Dnat(2, 0, 4),
            ),
            "meta l4proto tcp dnat to 10.180.0.1:80",
        ),
        (
            (*CALLED, Numgen(3, 3), Lookup("endpoints", into=0), Dnat(2, 0, 1)),
            "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints",
        ),
        ((Other("counter", b"\1\2"),), "[ counter 0102 ]"),
    ],
)
def test_rules_read_as_nft_prints_them(expressions: tuple[Expression, ...], text: str) -> None:
    assert rule_text(Rule(encode(expressions)), CONTENTS, wire.NFPROTO_IPV4) == text


def test_ipv6() -> None:
    rule = (
        Payload(Header.NETWORK, 8, 8),
        Cmp(Op.NEQ, b"\xfd\0\0\x10\0\0\0\0"),
        Immediate(b"\xfd" + bytes(14) + b"\1"),
        Immediate(b"\0\x50", 4),
        Dnat(10, 0, 4),
    )
    assert rule_text(Rule(encode(rule), "why"), CONTENTS, wire.NFPROTO_IPV6) == (
        'ip6 saddr != fd00:10::/64 dnat to [fd00::1]:80 comment "why"'
    )
