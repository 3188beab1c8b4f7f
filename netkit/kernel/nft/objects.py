"""Tables, chains, sets, elements and rules as values, and the messages that make, change and remove them.

Called by those who render rule sets, and by the fake. The same functions read what the kernel dumps and what was
meant to be sent, because both have the same form. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from netkit.kernel.nft import wire
from netkit.kernel.nft.datatypes import DataType, concat_number, split_number
from netkit.kernel.nft.expressions import Code, Expression, Verdict, encode, verdict_data, verdict_of
from netkit.kernel.nft.template import Template
from netkit.kernel.nft.wire import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    Elements,
    Message,
    attribute,
    comment_data,
    comment_of,
    message,
    text_attribute,
    text_of,
    u32_attribute,
    u32_of,
    u64_attribute,
    u64_of,
    user_data,
    user_data_of,
)

_SET_ANONYMOUS, _SET_CONSTANT, _SET_INTERVAL, _SET_MAP, _SET_TIMEOUT, _SET_EVAL, _SET_CONCAT = (
    1,
    2,
    4,
    8,
    16,
    32,
    128,
)
_VERDICT_TYPE: Final = 0xFFFFFF00
_VERDICT_BYTES: Final = 16
_SET_COMMENT: Final = 7
_SET_SIGNATURE: Final = 110
"""A kind of user data that nft does not know, and passes over."""
_HOST_ORDER, _BIG_ORDER = 1, 2
_INTERVAL_END: Final = 1
_ACCEPT: Final = 1
_LIST_BYTES: Final = 60_000
"""How many bytes of elements go into one message; an attribute holds less than 64 KiB."""

_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is called from: kind of chain (`filter`, `nat`), hook by name, and priority."""

    kind: str
    hook: str
    priority: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; with a hook a base chain, whose policy is accept."""

    name: str
    comment: str = ""
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class SetSpec:
    """A set; with `data` a map to values, with `verdicts` a map to verdicts.

    `timeout` in seconds is what its elements get; `dynamic` says that rules add elements. `signature` stands for
    the elements of an anonymous set, which never change, so that they need not be read to be compared.
    """

    name: str
    key: tuple[DataType, ...]
    data: tuple[DataType, ...] = ()
    verdicts: bool = False
    interval: bool = False
    dynamic: bool = False
    timeouts: bool = False
    timeout: int = 0
    size: int = 0
    comment: str = ""
    anonymous: bool = False
    signature: bytes = b""

    @property
    def is_map(self) -> bool:
        return self.verdicts or bool(self.data)

    @property
    def key_bytes(self) -> int:
        return sum(kind.padded for kind in self.key) if len(self.key) > 1 else self.key[0].length

    @property
    def data_bytes(self) -> int:
        return sum(kind.padded for kind in self.data) if len(self.data) > 1 else self.data[0].length


class Element(NamedTuple):
    """One element. `end` closes a range of a concatenation; `ends` marks the first key behind a plain range."""

    key: bytes
    data: bytes | Verdict | None = None
    comment: str = ""
    end: bytes | None = None
    ends: bool = False


class Rule(NamedTuple):
    """A rule as the kernel keeps it: the bytes of its expressions, and its comment."""

    expressions: bytes
    comment: str = ""


@dataclass(slots=True)
class Contents:
    """All of one table."""

    comment: str = ""
    chains: dict[str, Chain] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    sets: dict[str, SetSpec] = field(default_factory=dict)
    elements: dict[str, list[Element]] = field(default_factory=dict)

    def copy(self) -> Contents:
        """The same contents, to be changed apart from these."""
        return Contents(
            self.comment,
            dict(self.chains),
            {name: list(rules) for name, rules in self.rules.items()},
            dict(self.sets),
            {name: list(elements) for name, elements in self.elements.items()},
        )


class TableWriter:
    """Messages about one table of one family (`wire.NFPROTO_IPV4` or `NFPROTO_IPV6`)."""

    def __init__(self, family: int, table: str) -> None:
        self.family = family
        self.table = table
        self._name = text_attribute(1, table)

    def add_table(self, comment: str = "") -> bytes:
        body = self._name + (attribute(wire.Table.USERDATA, comment_data(0, comment)) if comment else b"")
        return message(Message.NEWTABLE, self.family, body, NLM_F_CREATE)

    def delete_table(self) -> bytes:
        return message(Message.DELTABLE, self.family, self._name)

    def add_chain(self, chain: Chain) -> bytes:
        """Make the chain unless it is there."""
        body = self._name + text_attribute(wire.Chain.NAME, chain.name)
        if chain.hook is not None:
            number = u32_attribute(wire.Hook.NUMBER, _HOOKS.index(chain.hook.hook))
            priority = u32_attribute(wire.Hook.PRIORITY, chain.hook.priority)
            body += (
                attribute(wire.Chain.HOOK, number + priority)
                + u32_attribute(wire.Chain.POLICY, _ACCEPT)
                + text_attribute(wire.Chain.TYPE, chain.hook.kind)
            )
        if chain.comment:
            body += attribute(wire.Chain.USERDATA, comment_data(0, chain.comment))
        return message(Message.NEWCHAIN, self.family, body, NLM_F_CREATE)

    def delete_chain(self, name: str) -> bytes:
        """Remove the chain, which must be empty and led to by nothing."""
        return message(Message.DELCHAIN, self.family, self._name + text_attribute(wire.Chain.NAME, name))

    def flush_chain(self, name: str) -> bytes:
        """Remove all rules of the chain."""
        return message(Message.DELRULE, self.family, self._name + text_attribute(wire.Rule.CHAIN, name))

    def delete_rule(self, chain: str, handle: int) -> bytes:
        """Remove one rule of the chain, by the number the kernel has given it."""
        body = self._name + text_attribute(wire.Rule.CHAIN, chain) + u64_attribute(wire.Rule.HANDLE, handle)
        return message(Message.DELRULE, self.family, body)

    def add_rule(self, chain: str, expressions: Iterable[Expression], comment: str = "") -> bytes:
        """Append a rule to the chain."""
        body = (
            self._name
            + text_attribute(wire.Rule.CHAIN, chain)
            + attribute(wire.Rule.EXPRESSIONS, encode(expressions))
        )
        if comment:
            body += attribute(wire.Rule.USERDATA, comment_data(0, comment))
        return message(Message.NEWRULE, self.family, body, NLM_F_CREATE | NLM_F_APPEND)

    def add_set(self, spec: SetSpec, set_id: int = 0) -> bytes:
        """Make the set unless it is there. `set_id` lets rules of this transaction name an anonymous one."""
        body = [
            self._name,
            text_attribute(wire.Set.NAME, spec.name),
            u32_attribute(wire.Set.FLAGS, _set_flags(spec)),
            u32_attribute(wire.Set.KEY_TYPE, concat_number(spec.key)),
            u32_attribute(wire.Set.KEY_LEN, spec.key_bytes),
        ]
        if spec.verdicts:
            body.append(u32_attribute(wire.Set.DATA_TYPE, _VERDICT_TYPE))
            body.append(u32_attribute(wire.Set.DATA_LEN, _VERDICT_BYTES))
        elif spec.data:
            body.append(u32_attribute(wire.Set.DATA_TYPE, concat_number(spec.data)))
            body.append(u32_attribute(wire.Set.DATA_LEN, spec.data_bytes))
        # The kernel asks for a number here, also of sets that are found by name.
        body.append(u32_attribute(wire.Set.ID, set_id))
        if spec.timeout:
            body.append(u64_attribute(wire.Set.TIMEOUT, spec.timeout * 1000))
        body.append(attribute(wire.Set.USERDATA, _set_user_data(spec)))
        description = _description(spec)
        if description:
            body.append(attribute(wire.Set.DESC, description))
        return message(Message.NEWSET, self.family, b"".join(body), NLM_F_CREATE)

    def delete_set(self, name: str) -> bytes:
        """Remove the set with its elements; no rule may use it."""
        return message(Message.DELSET, self.family, self._name + text_attribute(wire.Set.NAME, name))

    def add_elements(self, name: str, elements: Iterable[Element], set_id: int = 0) -> list[bytes]:
        return self._elements(Message.NEWSETELEM, name, elements, set_id)

    def delete_elements(self, name: str, elements: Iterable[Element]) -> list[bytes]:
        return self._elements(Message.DELSETELEM, name, elements, 0)

    def flush_set(self, name: str) -> bytes:
        """Remove all elements of the set."""
        return message(Message.DELSETELEM, self.family, self._name + text_attribute(Elements.SET, name))

    def add_encoded(self, items: Iterable[bytes], set_id: int) -> list[bytes]:
        """Add elements that are encoded already to the set of this number, which the transaction makes."""
        return self._lists(Message.NEWSETELEM, u32_attribute(Elements.SET_ID, set_id), items)

    def _elements(self, kind: Message, name: str, elements: Iterable[Element], set_id: int) -> list[bytes]:
        # A set of this transaction is found by its number, without asking all others for their names.
        which = u32_attribute(Elements.SET_ID, set_id) if set_id else text_attribute(Elements.SET, name)
        return self._lists(kind, which, map(encode_element, elements))

    def _lists(self, kind: Message, which: bytes, items: Iterable[bytes]) -> list[bytes]:
        """As many messages as the items need."""
        head = self._name + which
        flags = NLM_F_CREATE if kind is Message.NEWSETELEM else 0
        found: list[bytes] = []
        batch: list[bytes] = []
        size = 0
        for item in items:
            if size + len(item) > _LIST_BYTES:
                found.append(
                    message(kind, self.family, head + attribute(Elements.LIST, b"".join(batch)), flags)
                )
                batch, size = [], 0
            batch.append(item)
            size += len(item)
        if batch:
            found.append(message(kind, self.family, head + attribute(Elements.LIST, b"".join(batch)), flags))
        return found


def encode_element(element: Element) -> bytes:
    """One item of a list of elements. The kinds of which there are thousands come from templates."""
    key, data, comment, end, ends = element
    if not comment and end is None and not ends:
        if data is None:
            return _KEY.fill(key)
        if isinstance(data, bytes):
            return _VALUE.fill(key, data)
        if data.code is Code.GOTO:
            return encode_leading(key, data.chain.encode())
    return _encode_element(key, data, comment, end, ends)


def _encode_element(
    key: bytes, data: bytes | Verdict | None, comment: str, end: bytes | None = None, ends: bool = False
) -> bytes:
    body = attribute(Elements.KEY, attribute(Elements.VALUE, key))
    if ends:
        body += u32_attribute(Elements.FLAGS, _INTERVAL_END)
    if end is not None:
        body += attribute(Elements.KEY_END, attribute(Elements.VALUE, end))
    if data is not None:
        value = verdict_data(data) if isinstance(data, Verdict) else attribute(Elements.VALUE, data)
        body += attribute(Elements.DATA, value)
    if comment:
        body += attribute(Elements.USERDATA, comment_data(0, comment))
    return attribute(Elements.ITEM, body)


_KEY: Final = Template(lambda values: _encode_element(values["key"], None, ""), ("key",))
_VALUE: Final = Template(lambda values: _encode_element(values["key"], values["data"], ""), ("key", "data"))
_LEADING: Final = Template(
    lambda values: _encode_element(values["key"], Verdict(Code.GOTO, values["chain"].decode()), ""),
    ("key", "chain"),
)
encode_leading = _LEADING.fill
"""`encode_element` for an element that goes to a chain, of which there are thousands: from key and chain."""


def chain_of(body: bytes) -> tuple[str, Chain]:
    """The table's name and the chain of a NEWCHAIN message."""
    found = wire.table_of(body)
    hook = None
    if wire.Chain.HOOK in found:
        where = wire.table_of(found[wire.Chain.HOOK])
        number = u32_of(where[wire.Hook.NUMBER])
        hook = Hook(
            text_of(found.get(wire.Chain.TYPE, b"")),
            _HOOKS[number] if number < len(_HOOKS) else str(number),
            wire.signed(u32_of(where[wire.Hook.PRIORITY])),
        )
    chain = Chain(text_of(found[wire.Chain.NAME]), comment_of(found.get(wire.Chain.USERDATA)), hook)
    return text_of(found[wire.Chain.TABLE]), chain


def rule_of(body: bytes) -> tuple[str, Rule]:
    """The chain's name and the rule of a NEWRULE message."""
    found = wire.table_of(body)
    comment = comment_of(found.get(wire.Rule.USERDATA))
    return text_of(found[wire.Rule.CHAIN]), Rule(found.get(wire.Rule.EXPRESSIONS, b""), comment)


def set_of(body: bytes) -> SetSpec:
    """The set of a NEWSET message."""
    found = wire.table_of(body)
    flags = u32_of(found[wire.Set.FLAGS]) if wire.Set.FLAGS in found else 0
    size = wire.table_of(found[wire.Set.DESC]).get(1) if wire.Set.DESC in found else None
    key = split_number(u32_of(found[wire.Set.KEY_TYPE]), u32_of(found[wire.Set.KEY_LEN]))
    data: tuple[DataType, ...] = ()
    data_number = u32_of(found[wire.Set.DATA_TYPE]) if wire.Set.DATA_TYPE in found else 0
    verdicts = bool(flags & _SET_MAP) and data_number == _VERDICT_TYPE
    if flags & _SET_MAP and not verdicts:
        data = split_number(data_number, u32_of(found[wire.Set.DATA_LEN]))
    user_data = user_data_of(found.get(wire.Set.USERDATA, b""))
    return SetSpec(
        name=text_of(found[wire.Set.NAME]),
        key=key,
        data=data,
        verdicts=verdicts,
        interval=bool(flags & _SET_INTERVAL),
        dynamic=bool(flags & _SET_EVAL),
        timeouts=bool(flags & _SET_TIMEOUT),
        timeout=u64_of(found[wire.Set.TIMEOUT]) // 1000 if wire.Set.TIMEOUT in found else 0,
        size=u32_of(size) if size else 0,
        comment=text_of(user_data.get(_SET_COMMENT, b"")),
        anonymous=bool(flags & _SET_ANONYMOUS),
        signature=user_data.get(_SET_SIGNATURE, b""),
    )


def elements_of(body: bytes) -> tuple[str, list[Element]]:
    """The set's name and the elements of a NEWSETELEM (or DELSETELEM) message."""
    found = wire.table_of(body)
    items = wire.attributes(found[Elements.LIST]) if Elements.LIST in found else ()
    return text_of(found.get(Elements.SET, b"")), [_element(item) for _, item in items]


def _element(item: bytes) -> Element:
    found = wire.table_of(item)
    key = wire.table_of(found[Elements.KEY])[Elements.VALUE] if Elements.KEY in found else b""
    end = wire.table_of(found[Elements.KEY_END])[Elements.VALUE] if Elements.KEY_END in found else None
    data: bytes | Verdict | None = None
    if Elements.DATA in found:
        value = wire.table_of(found[Elements.DATA])
        data = value[Elements.VALUE] if Elements.VALUE in value else verdict_of(found[Elements.DATA])
    flags = u32_of(found[Elements.FLAGS]) if Elements.FLAGS in found else 0
    return Element(key, data, comment_of(found.get(Elements.USERDATA)), end, bool(flags & _INTERVAL_END))


def signature(elements: Iterable[Element]) -> bytes:
    """What `SetSpec.signature` is for these elements."""
    return signature_of(b"".join(map(encode_element, elements)))


def signature_of(encoded: bytes) -> bytes:
    """The same from elements that are encoded already."""
    return hashlib.blake2b(encoded, digest_size=8).digest()


def joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans (first and last number) in order; those that touch are one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def ranges(spans: Sequence[tuple[int, int]], length: int) -> list[Element]:
    """Elements of an interval set that holds the given spans of numbers (first and last), `length` bytes each.

    Spans that touch are joined, as nft does. An interval begins at a key and ends before the next key marked so.
    """
    found: list[Element] = []
    whole = joined(spans)
    if whole and whole[0][0] > 0:
        found.append(Element(bytes(length), ends=True))
    for first, last in whole:
        found.append(Element(first.to_bytes(length, "big")))
        if last + 1 < 1 << 8 * length:
            found.append(Element((last + 1).to_bytes(length, "big"), ends=True))
    return found


def spans_of(elements: Iterable[Element]) -> list[tuple[int, int]]:
    """The spans an interval set's elements stand for, in order."""
    edges = sorted(
        (int.from_bytes(element.key, "big"), element.ends, len(element.key)) for element in elements
    )
    found: list[tuple[int, int]] = []
    begun: int | None = None
    for number, ends, length in edges:
        if ends:
            if begun is not None:
                found.append((begun, number - 1))
            begun = None
        else:
            begun = number
        top = (1 << 8 * length) - 1
    if begun is not None:
        found.append((begun, top))
    return found


def _set_flags(spec: SetSpec) -> int:
    return (
        (_SET_ANONYMOUS | _SET_CONSTANT if spec.anonymous else 0)
        | (_SET_INTERVAL if spec.interval else 0)
        | (_SET_MAP if spec.is_map else 0)
        | (_SET_TIMEOUT if spec.timeouts or spec.timeout else 0)
        | (_SET_EVAL if spec.dynamic else 0)
        | (_SET_CONCAT if spec.interval and len(spec.key) > 1 else 0)
    )


def _description(spec: SetSpec) -> bytes:
    """Size, and for ranges of concatenations the length of each field."""
    found = u32_attribute(1, spec.size) if spec.size else b""
    if spec.interval and len(spec.key) > 1:
        fields = [attribute(1, u32_attribute(1, kind.length)) for kind in spec.key]
        found += attribute(2, b"".join(fields))
    return found


def _set_user_data(spec: SetSpec) -> bytes:
    """What nft needs to print keys and values in the right byte order, and the comment."""
    items = [(0, _byte_order(spec.key).to_bytes(4, "little"))]
    if spec.is_map:
        items.append((1, _byte_order(spec.data).to_bytes(4, "little")))
    data = user_data(*items)
    if spec.comment:
        data += comment_data(_SET_COMMENT, spec.comment)
    return data + user_data((_SET_SIGNATURE, spec.signature)) if spec.signature else data


def _byte_order(kinds: tuple[DataType, ...]) -> int:
    if len(kinds) != 1:
        return 0
    return _HOST_ORDER if kinds[0].host_order else _BIG_ORDER
