"""Messages applied to a table in memory: what the kernel would hold after a transaction.

Used to say what a rendering means (wanted against standing) without a kernel, and by the fake. Pure; it takes what
does not exist for an error, as the kernel does.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace

from netkit.kernel.errors import KernelError
from netkit.kernel.nft import wire
from netkit.kernel.nft.expressions import Lookup, decode, encode
from netkit.kernel.nft.objects import Contents, Rule, SetSpec, chain_of, elements_of, rule_of, set_of
from netkit.kernel.nft.refusals import describe
from netkit.kernel.nft.wire import HEADER_BYTES, Message, text_of


class Replay:
    """A table that takes messages. `contents` is None while there is no table."""

    def __init__(self, contents: Contents | None = None) -> None:
        self.contents = contents
        self._serial = 0
        self._by_id: dict[int, str] = {}
        self._rules_gone = False
        self._placed: dict[str, list[tuple[int, Rule]]] = {}

    def apply(self, blocks: Iterable[bytes]) -> None:
        """Apply one transaction. Raises KernelError in the middle of it when the kernel would refuse."""
        self._by_id.clear()
        self._placed.clear()
        self._rules_gone = False
        for block in blocks:
            offset = 0
            while offset < len(block):
                length, kind = wire.HEADER.unpack_from(block, offset)[:2]
                self._one(Message(kind & 0xFF), block[offset : offset + length])
                offset += (length + 3) & ~3
        if self._rules_gone and self.contents is not None:
            self._drop_unused(self.contents)

    def _one(self, kind: Message, message: bytes) -> None:
        body = message[HEADER_BYTES:]
        if kind is Message.NEWTABLE:
            comment = wire.comment_of(wire.table_of(body).get(wire.Table.USERDATA))
            self.contents = self.contents or Contents(comment)
            return
        contents = self.contents
        if contents is None:
            raise KernelError(describe(message), errno=errno.ENOENT)
        match kind:
            case Message.DELTABLE:
                self.contents = None
            case Message.NEWCHAIN:
                self._add_chain(contents, body, message)
            case Message.DELCHAIN:
                name = self._named(contents.chains, body, wire.Chain.NAME, message)
                if contents.rules[name]:
                    raise KernelError(describe(message), errno=errno.EBUSY)
                del contents.chains[name], contents.rules[name]
            case Message.NEWRULE:
                self._add_rule(contents, body, message)
            case Message.DELRULE:
                name = self._named(contents.rules, body, wire.Rule.CHAIN, message)
                self._delete_rules(contents.rules, name, body, message)
            case Message.NEWSET:
                self._add_set(contents, body, message)
            case Message.DELSET:
                name = self._named(contents.sets, body, wire.Set.NAME, message)
                del contents.sets[name], contents.elements[name]
            case Message.NEWSETELEM:
                self._add_elements(contents, body, message)
            case Message.DELSETELEM:
                self._delete_elements(contents, body, message)
            case _:
                raise ValueError(f"not a change: {describe(message)}")
        self._rules_gone |= kind is Message.DELRULE

    def _named(self, known: Iterable[str], body: bytes, attribute: int, message: bytes) -> str:
        name = text_of(wire.table_of(body)[attribute])
        if name not in known:
            raise KernelError(describe(message), errno=errno.ENOENT)
        return name

    def _add_chain(self, contents: Contents, body: bytes, message: bytes) -> None:
        _, chain = chain_of(body)
        known = contents.chains.get(chain.name)
        if known is None:
            contents.chains[chain.name] = chain
            contents.rules[chain.name] = []
        elif chain.hook is not None and known.hook != chain.hook:
            raise KernelError(describe(message), errno=errno.EEXIST)

    def _add_rule(self, contents: Contents, body: bytes, message: bytes) -> None:
        chain, rule = rule_of(body)
        if chain not in contents.chains:
            raise KernelError(describe(message), errno=errno.ENOENT)
        if b"%d\0" in rule.expressions:
            rule = Rule(self._bound(rule.expressions), rule.comment)
        if wire.HEADER.unpack_from(message)[2] & wire.NLM_F_APPEND:
            contents.rules[chain].append(rule)
        else:
            contents.rules[chain].insert(0, rule)

    def _delete_rules(self, rules: dict[str, list[Rule]], chain: str, body: bytes, message: bytes) -> None:
        """All of a chain, or one by its handle, which is its place before this transaction, counted from one."""
        handle = wire.table_of(body).get(wire.Rule.HANDLE)
        if handle is None:
            rules[chain] = []
            return
        before = self._placed.setdefault(chain, list(enumerate(rules[chain], 1)))
        after = [(place, rule) for place, rule in before if place != wire.u64_of(handle)]
        if len(after) == len(before):
            raise KernelError(describe(message), errno=errno.ENOENT)
        self._placed[chain] = after
        rules[chain] = [rule for _, rule in after]

    def _bound(self, expressions: bytes) -> bytes:
        """The rule with the names its anonymous sets have got."""
        found = decode(expressions)
        return encode(
            replace(item, set_name=self._by_id[item.set_id], set_id=0)
            if isinstance(item, Lookup) and item.set_id
            else item
            for item in found
        )

    def _add_set(self, contents: Contents, body: bytes, message: bytes) -> None:
        spec = set_of(body)
        if spec.anonymous:
            number = wire.u32_of(wire.table_of(body)[wire.Set.ID])
            if number in self._by_id:
                raise KernelError(describe(message), errno=errno.EEXIST, stderr="the set's id is taken")
            if "%" in spec.name:
                spec = replace(spec, name=self._unused_name(contents, spec.name))
            elif spec.name in contents.sets and not self._rules_gone:
                raise KernelError(describe(message), errno=errno.ENFILE)
            self._by_id[number] = spec.name
        elif (known := contents.sets.get(spec.name)) is not None:
            if known != spec:
                raise KernelError(describe(message), errno=errno.EEXIST)
            return
        contents.sets[spec.name] = spec
        contents.elements[spec.name] = []

    def _unused_name(self, contents: Contents, pattern: str) -> str:
        while (name := pattern % self._serial) in contents.sets:
            self._serial += 1
        self._serial += 1
        return name

    def _add_elements(self, contents: Contents, body: bytes, message: bytes) -> None:
        found = wire.table_of(body)
        name, elements = elements_of(body)
        if wire.Elements.SET_ID in found and not name:
            name = self._by_id[wire.u32_of(found[wire.Elements.SET_ID])]
        spec = self._set(contents, name, message)
        known = (
            {(element.key, element.ends): element for element in contents.elements[name]} if elements else {}
        )
        for element in elements:
            old = known.get((element.key, element.ends))
            if old is not None and old.data != element.data:
                raise KernelError(describe(message), errno=errno.EEXIST)
            known[element.key, element.ends] = element
        if elements and len(elements[0].key) != spec.key_bytes:
            raise KernelError(describe(message), errno=errno.EINVAL)
        contents.elements[name] = list(known.values())

    def _delete_elements(self, contents: Contents, body: bytes, message: bytes) -> None:
        name, elements = elements_of(body)
        self._set(contents, name, message)
        known = {element.key: element for element in contents.elements[name]}
        if not elements:
            known = {}
        for element in elements:
            if known.pop(element.key, None) is None:
                raise KernelError(describe(message), errno=errno.ENOENT)
        contents.elements[name] = list(known.values())

    def _set(self, contents: Contents, name: str, message: bytes) -> SetSpec:
        spec = contents.sets.get(name)
        if spec is None:
            raise KernelError(describe(message), errno=errno.ENOENT)
        return spec

    def _drop_unused(self, contents: Contents) -> None:
        """Anonymous sets go with the rule they belong to."""
        anonymous = [name for name, spec in contents.sets.items() if spec.anonymous]
        if not anonymous:
            return
        used = {
            item.set_name
            for rules in contents.rules.values()
            for rule in rules
            if b"lookup" in rule.expressions
            for item in decode(rule.expressions)
            if isinstance(item, Lookup)
        }
        for name in anonymous:
            if name not in used:
                del contents.sets[name], contents.elements[name]
