"""The expressions a rule is made of, as the kernel's rule machine knows them; each to bytes and back.

A rule is a list of expressions that load packet fields into registers, compare or look up registers, and end in a
verdict or an action. Registers are counted here as the sixteen 32 bit slots 0-15 (an IPv6 address takes four). Pure;
how rules read as text is told by `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final

from netkit.kernel.nft import wire
from netkit.kernel.nft.wire import attribute, text_attribute, u32_attribute, u32_of, u64_attribute, u64_of

_EXPRESSION, _NAME, _DATA = 1, 1, 2
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2


class Header(IntEnum):
    """Where a payload expression counts its offset from."""

    NETWORK = 1
    TRANSPORT = 2


class MetaKey(IntEnum):
    """What a meta expression reads or writes."""

    MARK = 3
    IIFNAME = 6
    OIFNAME = 7
    L4PROTO = 16


class CtKey(IntEnum):
    """What a ct expression reads."""

    STATE = 0
    STATUS = 2


class Op(IntEnum):
    """How a comparison compares."""

    EQ = 0
    NEQ = 1


class Code(IntEnum):
    """Verdicts."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3
    GOTO = -4
    RETURN = -5


class DynsetOp(IntEnum):
    """What a rule does to a set."""

    ADD = 0
    UPDATE = 1
    DELETE = 2


FIB_SADDR, FIB_DADDR = 1, 2
NAT_DNAT: Final = 1
NAT_RANGE_MAP_IPS, NAT_RANGE_PROTO_SPECIFIED, NAT_RANGE_PROTO_RANDOM_FULLY = 1, 2, 16
_FIB_RESULT_ADDRTYPE: Final = 3
_NUMGEN_RANDOM: Final = 1
_LOOKUP_INVERT: Final = 1


@dataclass(frozen=True, slots=True)
class Payload:
    """Load `length` bytes of the packet into `reg`."""

    header: Header
    offset: int
    length: int
    reg: int = 0

    def encode(self) -> bytes:
        return _expression(
            "payload", *_u32s((1, _register(self.reg)), (2, self.header), (3, self.offset), (4, self.length))
        )


@dataclass(frozen=True, slots=True)
class Meta:
    """Load a property of the packet into `reg`."""

    key: MetaKey
    reg: int = 0

    def encode(self) -> bytes:
        return _expression("meta", *_u32s((2, self.key), (1, _register(self.reg))))


@dataclass(frozen=True, slots=True)
class MetaSet:
    """Set a property of the packet from `reg`."""

    key: MetaKey
    reg: int = 0

    def encode(self) -> bytes:
        return _expression("meta", *_u32s((2, self.key), (3, _register(self.reg))))


@dataclass(frozen=True, slots=True)
class Ct:
    """Load a property of the connection into `reg`."""

    key: CtKey
    reg: int = 0

    def encode(self) -> bytes:
        return _expression("ct", *_u32s((1, _register(self.reg)), (2, self.key)))


@dataclass(frozen=True, slots=True)
class FibType:
    """Load the type (local, unicast, ...) of the packet's source or destination (`flags`) into `reg`."""

    flags: int
    reg: int = 0

    def encode(self) -> bytes:
        return _expression(
            "fib", *_u32s((1, _register(self.reg)), (2, _FIB_RESULT_ADDRTYPE), (3, self.flags))
        )


@dataclass(frozen=True, slots=True)
class Cmp:
    """Go on only if `reg` holds (or does not hold) `data`."""

    op: Op
    data: bytes
    reg: int = 0

    def encode(self) -> bytes:
        return _expression(
            "cmp", *_u32s((1, _register(self.reg)), (2, self.op)), attribute(3, attribute(_VALUE, self.data))
        )


@dataclass(frozen=True, slots=True)
class Bitwise:
    """reg = (reg & mask) ^ xor, in the register's own byte order."""

    mask: bytes
    xor: bytes
    reg: int = 0

    def encode(self) -> bytes:
        reg = _register(self.reg)
        return _expression(
            "bitwise",
            *_u32s((1, reg), (2, reg), (3, len(self.mask)), (6, 0)),
            attribute(4, attribute(_VALUE, self.mask)),
            attribute(5, attribute(_VALUE, self.xor)),
        )


@dataclass(frozen=True, slots=True)
class Immediate:
    """Load a constant into `reg`."""

    data: bytes
    reg: int = 0

    def encode(self) -> bytes:
        return _expression(
            "immediate", *_u32s((1, _register(self.reg))), attribute(2, attribute(_VALUE, self.data))
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """End the rule; `chain` is where jump and goto lead."""

    code: Code
    chain: str = ""

    def encode(self) -> bytes:
        return _expression("immediate", u32_attribute(1, 0), attribute(2, verdict_data(self)))

    def __str__(self) -> str:
        return f"{self.code.name.lower()} {self.chain}" if self.chain else self.code.name.lower()


@dataclass(frozen=True, slots=True)
class Lookup:
    """Look the key that begins at `reg` up in a set.

    In a map the value goes to `into`, or is the verdict if `verdict`. Not found ends the rule (`inverted`: found
    does). `set_id` is another way to name an anonymous set that is made in the same transaction, which nft takes.
    """

    set_name: str
    reg: int = 0
    into: int | None = None
    verdict: bool = False
    inverted: bool = False
    set_id: int = 0

    def encode(self) -> bytes:
        parts = [text_attribute(1, self.set_name), u32_attribute(2, _register(self.reg))]
        if self.verdict:
            parts.append(u32_attribute(3, 0))
        elif self.into is not None:
            parts.append(u32_attribute(3, _register(self.into)))
        if self.set_id:
            parts.append(u32_attribute(4, self.set_id))
        parts.append(u32_attribute(5, _LOOKUP_INVERT if self.inverted else 0))
        return _expression("lookup", *parts)


@dataclass(frozen=True, slots=True)
class Numgen:
    """Load a random number below `modulus` into `reg`, in host byte order."""

    modulus: int
    reg: int = 0

    def encode(self) -> bytes:
        return _expression(
            "numgen", *_u32s((1, _register(self.reg)), (2, self.modulus), (3, _NUMGEN_RANDOM), (4, 0))
        )


@dataclass(frozen=True, slots=True)
class Dnat:
    """Rewrite the destination to the address in `address_reg` and the port in `port_reg`."""

    family: int
    address_reg: int
    port_reg: int

    def encode(self) -> bytes:
        address, port = _register(self.address_reg), _register(self.port_reg)
        flags = NAT_RANGE_MAP_IPS | NAT_RANGE_PROTO_SPECIFIED
        return _expression(
            "nat",
            *_u32s(
                (1, NAT_DNAT), (2, self.family), (3, address), (4, address), (5, port), (6, port), (7, flags)
            ),
        )


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Rewrite the source to the address of the interface the packet leaves by, with a random port."""

    def encode(self) -> bytes:
        return _expression("masq", u32_attribute(1, NAT_RANGE_PROTO_RANDOM_FULLY))


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse with an ICMP error; `code` is the family's "port unreachable"."""

    code: int

    def encode(self) -> bytes:
        return _expression("reject", u32_attribute(1, 0), attribute(2, bytes((self.code,))))


@dataclass(frozen=True, slots=True)
class Dynset:
    """Put the key that begins at `reg` (and the value at `data_reg`) into a set, or take it out.

    `timeout` in milliseconds, 0 is the set's own.
    """

    op: DynsetOp
    set_name: str
    reg: int = 0
    data_reg: int | None = None
    timeout: int = 0

    def encode(self) -> bytes:
        parts = [u32_attribute(4, _register(self.reg))]
        if self.data_reg is not None:
            parts.append(u32_attribute(5, _register(self.data_reg)))
        parts += [
            u32_attribute(3, self.op),
            text_attribute(1, self.set_name),
            u64_attribute(6, self.timeout),
            u32_attribute(9, 0),
        ]
        return _expression("dynset", *parts)


@dataclass(frozen=True, slots=True)
class Counter:
    """Count the packets that come here. What was counted so far is no part of what a rule means."""

    packets: int = field(default=0, compare=False)
    octets: int = field(default=0, compare=False)

    def encode(self) -> bytes:
        return _expression("counter", u64_attribute(1, self.octets), u64_attribute(2, self.packets))


@dataclass(frozen=True, slots=True)
class Other:
    """An expression this module does not know: somebody else's rule. `data` are its attributes."""

    name: str
    data: bytes

    def encode(self) -> bytes:
        return _expression(self.name, self.data)


Expression = (
    Payload
    | Meta
    | MetaSet
    | Ct
    | FibType
    | Cmp
    | Bitwise
    | Immediate
    | Verdict
    | Lookup
    | Numgen
    | Dnat
    | Masquerade
    | Reject
    | Dynset
    | Counter
    | Other
)


def encode(expressions: Iterable[Expression]) -> bytes:
    """The contents of a rule's list of expressions."""
    return b"".join([expression.encode() for expression in expressions])


@lru_cache(maxsize=4096)
def decode(data: bytes) -> tuple[Expression, ...]:
    """The expressions of a list as the kernel dumps it."""
    return tuple(_decoded(item) for _, item in wire.attributes(data))


def verdict_data(verdict: Verdict) -> bytes:
    """A verdict as the value of an immediate or of a map's element."""
    chain = text_attribute(_CHAIN, verdict.chain) if verdict.chain else b""
    return attribute(_VERDICT, u32_attribute(_CODE, verdict.code) + chain)


def verdict_of(data: bytes) -> Verdict:
    """The verdict in a data attribute."""
    found = wire.table_of(wire.table_of(data)[_VERDICT])
    return Verdict(Code(wire.signed(u32_of(found[_CODE]))), wire.text_of(found.get(_CHAIN, b"")))


def _expression(name: str, *parts: bytes) -> bytes:
    return attribute(_EXPRESSION, text_attribute(_NAME, name) + attribute(_DATA, b"".join(parts)))


def _u32s(*items: tuple[int, int]) -> list[bytes]:
    return [u32_attribute(kind, number) for kind, number in items]


def _register(slot: int) -> int:
    """The kernel's number: 1-4 for the 16 byte registers, 8 and on for those that begin within one."""
    return 8 + slot if slot & 3 else 1 + (slot >> 2)


def _slot(number: int) -> int:
    return (number - 1) * 4 if number < 8 else number - 8


_Attributes = Mapping[int, bytes]


def _number(found: _Attributes, kind: int) -> int:
    return u32_of(found[kind]) if kind in found else 0


def _reg(found: _Attributes, kind: int) -> int:
    return _slot(u32_of(found[kind]))


def _value(found: _Attributes, kind: int) -> bytes:
    return wire.table_of(found[kind])[_VALUE]


def _payload(found: _Attributes) -> Expression:
    return Payload(Header(_number(found, 2)), _number(found, 3), _number(found, 4), _reg(found, 1))


def _meta(found: _Attributes) -> Expression:
    key = MetaKey(_number(found, 2))
    return MetaSet(key, _reg(found, 3)) if 3 in found else Meta(key, _reg(found, 1))


def _fib(found: _Attributes) -> Expression:
    if _number(found, 2) != _FIB_RESULT_ADDRTYPE:
        raise ValueError("fib")
    return FibType(_number(found, 3), _reg(found, 1))


def _bitwise(found: _Attributes) -> Expression:
    if _number(found, 6):
        raise ValueError("shift")
    return Bitwise(_value(found, 4), _value(found, 5), _reg(found, 1))


def _immediate(found: _Attributes) -> Expression:
    if _number(found, 1) == 0:
        return verdict_of(found[2])
    return Immediate(_value(found, 2), _reg(found, 1))


def _lookup(found: _Attributes) -> Expression:
    verdict = 3 in found and _number(found, 3) == 0
    into = _reg(found, 3) if 3 in found and not verdict else None
    inverted = bool(_number(found, 5) & _LOOKUP_INVERT)
    return Lookup(wire.text_of(found[1]), _reg(found, 2), into, verdict, inverted, _number(found, 4))


def _numgen(found: _Attributes) -> Expression:
    if _number(found, 3) != _NUMGEN_RANDOM or _number(found, 4):
        raise ValueError("numgen")
    return Numgen(_number(found, 2), _reg(found, 1))


def _nat(found: _Attributes) -> Expression:
    if _number(found, 1) != NAT_DNAT or 3 not in found or 5 not in found:
        raise ValueError("nat")
    return Dnat(_number(found, 2), _reg(found, 3), _reg(found, 5))


def _masq(found: _Attributes) -> Expression:
    if _number(found, 1) != NAT_RANGE_PROTO_RANDOM_FULLY or len(found) > 1:
        raise ValueError("masq")
    return Masquerade()


def _reject(found: _Attributes) -> Expression:
    if _number(found, 1):
        raise ValueError("reject")
    return Reject(found[2][0])


def _dynset(found: _Attributes) -> Expression:
    timeout = u64_of(found[6]) if 6 in found else 0
    data = _reg(found, 5) if 5 in found else None
    return Dynset(DynsetOp(_number(found, 3)), wire.text_of(found[1]), _reg(found, 4), data, timeout)


_DECODERS: Mapping[str, Callable[[_Attributes], Expression]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": lambda found: Ct(CtKey(_number(found, 2)), _reg(found, 1)),
    "fib": _fib,
    "cmp": lambda found: Cmp(Op(_number(found, 2)), _value(found, 3), _reg(found, 1)),
    "bitwise": _bitwise,
    "immediate": _immediate,
    "lookup": _lookup,
    "numgen": _numgen,
    "nat": _nat,
    "masq": _masq,
    "reject": _reject,
    "dynset": _dynset,
    "counter": lambda found: Counter(u64_of(found[2]), u64_of(found[1])),
}


def _decoded(item: bytes) -> Expression:
    """One expression; `Other` for what no rule of ours has."""
    found = wire.table_of(item)
    name, data = wire.text_of(found[_NAME]), found.get(_DATA, b"")
    decoder = _DECODERS.get(name)
    if decoder is not None:
        try:
            return decoder(wire.table_of(data))
        except (ValueError, KeyError):
            pass
    return Other(name, data)
