"""Rules, sets and elements as `nft list` prints them (nft 1.0.6).

Called for listings, explanations and errors. A rule's expressions are read as the kernel would run them: each
register is given the words of what it holds, and whoever uses it prints them. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netkit.kernel.nft import datatypes
from netkit.kernel.nft.datatypes import DataType
from netkit.kernel.nft.expressions import (
    FIB_SADDR,
    Bitwise,
    Cmp,
    Code,
    Counter,
    Ct,
    CtKey,
    Dnat,
    Dynset,
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
)
from netkit.kernel.nft.objects import Chain, Contents, Element, Rule, SetSpec, spans_of

_FIELDS = {
    (Header.NETWORK, 12, 4): ("ip saddr", datatypes.IPV4_ADDR),
    (Header.NETWORK, 16, 4): ("ip daddr", datatypes.IPV4_ADDR),
    (Header.NETWORK, 8, 16): ("ip6 saddr", datatypes.IPV6_ADDR),
    (Header.NETWORK, 24, 16): ("ip6 daddr", datatypes.IPV6_ADDR),
    (Header.TRANSPORT, 0, 2): ("th sport", datatypes.INET_SERVICE),
    (Header.TRANSPORT, 2, 2): ("th dport", datatypes.INET_SERVICE),
}
_META = {
    MetaKey.MARK: ("meta mark", datatypes.MARK),
    MetaKey.IIFNAME: ("iifname", datatypes.IFNAME),
    MetaKey.OIFNAME: ("oifname", datatypes.IFNAME),
    MetaKey.L4PROTO: ("meta l4proto", datatypes.INET_PROTO),
}
_CT = {CtKey.STATE: ("ct state", datatypes.CT_STATE), CtKey.STATUS: ("ct status", datatypes.CT_STATUS)}
_BITS = {
    "ct_state": {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"},
    "ct_status": {0x10: "snat", 0x20: "dnat"},
}


@dataclass(frozen=True, slots=True)
class _Held:
    """What a register holds: words, type, length in bytes, and how many key fields it stands for."""

    words: str
    kind: DataType | None
    length: int
    mask: int | None = None
    constant: bytes | None = None


_Load = Payload | Meta | Ct | FibType | Numgen | Immediate | Bitwise
"""Expressions that do nothing but fill a register."""


class _Reader:
    """Reads one rule."""

    def __init__(self, contents: Contents, family: int) -> None:
        self._contents = contents
        self._family = family
        self._held: dict[int, _Held] = {}
        self.words: list[str] = []

    def read(self, expression: Expression) -> None:
        match expression:
            case Payload() | Meta() | Ct() | FibType() | Numgen() | Immediate() | Bitwise():
                self._held[expression.reg] = self._loaded(expression)
            case Cmp():
                self.words.append(_comparison(self._held[expression.reg], expression))
            case Lookup():
                self._lookup(expression)
            case Dynset():
                self._dynset(expression)
            case Dnat():
                self._dnat(expression)
            case MetaSet():
                self.words.append(f"{_META[expression.key][0]} set {self._held[expression.reg].words}")
            case Masquerade():
                self.words.append("masquerade fully-random")
            case Reject():
                self.words.append("reject")
            case Counter():
                self.words.append(f"counter packets {expression.packets} bytes {expression.octets}")
            case Verdict():
                self.words.append(str(expression))
            case Other():
                self.words.append(f"[ {expression.name} {expression.data.hex()} ]")

    def _loaded(self, expression: _Load) -> _Held:
        """What the register holds after the expression."""
        match expression:
            case Payload():
                return _payload(expression, self._family)
            case Meta():
                words, kind = _META[expression.key]
                return _Held(words, kind, kind.length)
            case Ct():
                words, kind = _CT[expression.key]
                return _Held(words, kind, kind.length)
            case FibType():
                direction = "saddr" if expression.flags & FIB_SADDR else "daddr"
                return _Held(f"fib {direction} type", datatypes.FIB_ADDRTYPE, 4)
            case Numgen():
                return _Held(f"numgen random mod {expression.modulus}", datatypes.INTEGER, 4)
            case Immediate():
                return _Held("", None, len(expression.data), constant=expression.data)
            case Bitwise():
                return _masked(self._held[expression.reg], expression)

    def _lookup(self, lookup: Lookup) -> None:
        spec = self._contents.sets.get(lookup.set_name)
        key = self._key(lookup.reg, spec.key if spec else ())
        if spec is not None and spec.anonymous:
            target = set_text(spec, self._contents.elements.get(spec.name, ()))
        else:
            target = f"@{lookup.set_name}"
        if lookup.verdict:
            self.words.append(f"{key} vmap {target}")
        elif lookup.into is not None:
            words, slot = f"{key} map {target}", lookup.into
            for kind in spec.data if spec else ():
                self._held[slot] = _Held(words, kind, kind.length)
                words, slot = "", slot + kind.padded // 4
        else:
            self.words.append(f"{key}{' !=' if lookup.inverted else ''} {target}")

    def _dynset(self, change: Dynset) -> None:
        spec = self._contents.sets.get(change.set_name)
        words = self._key(change.reg, spec.key if spec else ())
        if change.timeout:
            words += f" timeout {datatypes.duration(change.timeout // 1000)}"
        if change.data_reg is not None:
            words += f" : {self._key(change.data_reg, spec.data if spec else ())}"
        self.words.append(f"{change.op.name.lower()} @{change.set_name} {{ {words} }}")

    def _dnat(self, dnat: Dnat) -> None:
        address, port = self._held.get(dnat.address_reg), self._held.get(dnat.port_reg)
        if address and port and address.constant is not None and port.constant is not None:
            target = str(ipaddress.ip_address(address.constant))
            target = f"[{target}]" if ":" in target else target
            self.words.append(f"dnat to {target}:{int.from_bytes(port.constant[:2], 'big')}")
            return
        family = "ip" if self._family == 2 else "ip6"
        self.words.append(f"dnat {family} to {address.words if address else '?'}")

    def _key(self, slot: int, kinds: Sequence[DataType]) -> str:
        """The words of the registers from `slot` on that make up a key of these types."""
        words: list[str] = []
        for kind in kinds:
            held = self._held.get(slot)
            if held is None:
                words.append("?")
            elif held.constant is not None:
                words.append(kind.text(held.constant))
            elif held.words:
                words.append(held.words)
            slot += kind.padded // 4
        return " . ".join(words)


def rule_text(rule: Rule, contents: Contents, family: int) -> str:
    """A rule of `contents`, whose sets tell how its keys read."""
    reader = _Reader(contents, family)
    for expression in decode(rule.expressions):
        reader.read(expression)
    if rule.comment:
        reader.words.append(f'comment "{rule.comment}"')
    return " ".join(reader.words)


def chain_note(chain: Chain) -> str:
    """What a chain's rules do not say: its hook and its comment."""
    words = []
    if chain.hook is not None:
        hook = chain.hook
        words.append(f"type {hook.kind} hook {hook.hook} priority {hook.priority}; policy accept;")
    if chain.comment:
        words.append(f'comment "{chain.comment}"')
    return " ".join(words)


def set_note(spec: SetSpec) -> str:
    """What a set's elements do not say: its types, flags and comment."""
    words = [f"type {' . '.join(kind.name for kind in spec.key)}"]
    if spec.verdicts:
        words[0] += " : verdict"
    elif spec.data:
        words[0] += f" : {' . '.join(kind.name for kind in spec.data)}"
    if spec.size:
        words.append(f"size {spec.size}")
    flags = [
        name
        for name, there in (
            ("interval", spec.interval),
            ("dynamic", spec.dynamic),
            ("timeout", spec.timeouts or spec.timeout),
        )
        if there
    ]
    if flags:
        words.append(f"flags {','.join(flags)}")
    if spec.timeout:
        words.append(f"timeout {datatypes.duration(spec.timeout)}")
    if spec.comment:
        words.append(f'comment "{spec.comment}"')
    return "; ".join(words)


def set_text(spec: SetSpec, elements: Iterable[Element]) -> str:
    """The elements of an anonymous set in braces."""
    return f"{{ {', '.join(element_texts(spec, elements))} }}"


def element_texts(spec: SetSpec, elements: Iterable[Element]) -> list[str]:
    """Each element as nft prints it, sorted by key."""
    if spec.interval and len(spec.key) == 1:
        return [_span_text(spec.key[0], first, last) for first, last in spans_of(elements)]
    ordered = sorted(elements, key=lambda element: _sort_key(spec, element))
    return [element_text(spec, element) for element in ordered]


def element_text(spec: SetSpec, element: Element) -> str:
    """One element of a set that is not made of plain ranges."""
    if element.end is None:
        words = datatypes.text(spec.key, element.key)
    else:
        fields = zip(
            spec.key,
            datatypes.split(spec.key, element.key),
            datatypes.split(spec.key, element.end),
            strict=True,
        )
        words = " . ".join(
            kind.text(low)
            if low == high
            else _span_text(kind, int.from_bytes(low, "big"), int.from_bytes(high, "big"))
            for kind, low, high in fields
        )
    if element.comment:
        words += f' comment "{element.comment}"'
    if element.data is None:
        return words
    data = element.data if isinstance(element.data, Verdict) else datatypes.text(spec.data, element.data)
    return f"{words} : {data}"


def _sort_key(spec: SetSpec, element: Element) -> tuple[int, bytes]:
    if spec.key[0].host_order:
        return int.from_bytes(element.key, "little"), b""
    return 0, element.key


def _span_text(kind: DataType, first: int, last: int) -> str:
    """A range as a prefix if it is one, else as first and last."""
    if kind.name not in ("ipv4_addr", "ipv6_addr"):
        return str(first) if first == last else f"{first}-{last}"
    make = ipaddress.IPv4Address if kind.length == 4 else ipaddress.IPv6Address
    if first == last:
        return str(make(first))
    networks = list(ipaddress.summarize_address_range(make(first), make(last)))
    return str(networks[0]) if len(networks) == 1 else f"{make(first)}-{make(last)}"


def _payload(load: Payload, family: int) -> _Held:
    known = _FIELDS.get((load.header, load.offset, load.length))
    if known is not None:
        return _Held(known[0], known[1], load.length)
    # The first bytes of an address: nft compares prefixes of whole bytes so.
    length = 4 if family == 2 else 16
    whole = _FIELDS.get((load.header, load.offset, length))
    if whole is not None and load.length < length:
        return _Held(whole[0], whole[1], load.length)
    return _Held(f"@{load.header.name.lower()},{load.offset * 8},{load.length * 8}", None, load.length)


def _masked(held: _Held, change: Bitwise) -> _Held:
    kind = held.kind
    if kind is None:
        return replace(held, words=f"({held.words} & {change.mask.hex()} ^ {change.xor.hex()})")
    order = "little" if kind.host_order else "big"
    mask, xor = int.from_bytes(change.mask, order), int.from_bytes(change.xor, order)  # type: ignore[arg-type]
    if not xor:
        return replace(held, mask=mask)
    every = (1 << 8 * len(change.mask)) - 1
    if mask == every:
        return replace(held, words=f"{held.words} ^ {kind.number_text(xor)}")
    if mask == every ^ xor:
        return replace(held, words=f"{held.words} | {kind.number_text(xor)}")
    return replace(held, words=f"{held.words} & {kind.number_text(mask)} ^ {kind.number_text(xor)}")


def _comparison(held: _Held, cmp: Cmp) -> str:
    sign = " !=" if cmp.op is Op.NEQ else ""
    kind = held.kind
    if kind is None:
        return f"{held.words}{sign or ' =='} 0x{cmp.data.hex()}"
    if kind.name in _BITS and held.mask is not None and cmp.op is Op.NEQ and not any(cmp.data):
        names = [name for bit, name in _BITS[kind.name].items() if held.mask & bit]
        return f"{held.words} {','.join(names)}"
    if kind.name in ("ipv4_addr", "ipv6_addr"):
        if held.mask is not None:
            length = f"{held.mask:b}".count("1")
        elif len(cmp.data) < kind.length:
            length = len(cmp.data) * 8
        else:
            return f"{held.words}{sign} {kind.text(cmp.data)}"
        return f"{held.words}{sign} {kind.text(cmp.data + bytes(kind.length - len(cmp.data)))}/{length}"
    if held.mask is not None:
        return f"{held.words} & {kind.number_text(held.mask)} {'!=' if sign else '=='} {kind.text(cmp.data)}"
    return f"{held.words}{sign} {kind.text(cmp.data)}"


def leads_to(rule: Rule) -> list[str]:
    """The chains a rule jumps or goes to itself; those of its maps are not counted."""
    return [
        expression.chain
        for expression in decode(rule.expressions)
        if isinstance(expression, Verdict) and expression.code in (Code.JUMP, Code.GOTO)
    ]
