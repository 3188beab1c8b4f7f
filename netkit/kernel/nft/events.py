"""What others do to a table, from the kernel's notifications of committed transactions. Pure."""

from __future__ import annotations

from netkit.kernel.nft import wire
from netkit.kernel.nft.wire import HEADER_BYTES, Message, text_of, u32_of

_WHAT = {
    Message.NEWTABLE: "added the table",
    Message.DELTABLE: "deleted the table",
    Message.NEWCHAIN: "added or changed chain",
    Message.DELCHAIN: "deleted chain",
    Message.NEWRULE: "added a rule to chain",
    Message.DELRULE: "deleted a rule of chain",
    Message.NEWSET: "added set",
    Message.DELSET: "deleted set",
    Message.NEWSETELEM: "added elements to set",
    Message.DELSETELEM: "deleted elements of set",
}
_NAMES = {
    Message.NEWCHAIN: wire.Chain.NAME,
    Message.DELCHAIN: wire.Chain.NAME,
    Message.NEWRULE: wire.Rule.CHAIN,
    Message.DELRULE: wire.Rule.CHAIN,
    Message.NEWSET: wire.Set.NAME,
    Message.DELSET: wire.Set.NAME,
    Message.NEWSETELEM: wire.Elements.SET,
    Message.DELSETELEM: wire.Elements.SET,
}
_PROCESS_ID, _PROCESS_NAME = 2, 3
_NAMED_CHANGES = 3


class Changes:
    """Gathers the changes of one table until the transaction they belong to is complete.

    `own` are the port ids of our own sockets, whose changes are nobody else's.
    """

    def __init__(self, family: int, table: str) -> None:
        self.own: set[int] = set()
        self._family = family
        self._table = table
        self._words: dict[str, None] = {}
        self._count = 0

    def read(self, data: bytes) -> str:
        """Take in notifications; returns who did what once somebody's transaction is told of in full, else ""."""
        found = ""
        for kind, _, port_id, start, end in wire.messages(data):
            if kind >> 8 != wire.NFNL_SUBSYS_NFTABLES or port_id in self.own:
                continue
            what = Message(kind & 0xFF)
            if what is Message.NEWGEN:
                found = found or self._sentence(data[start + 4 : end])
            elif data[start] == self._family:
                self._note(what, wire.table_of(data[start:end], HEADER_BYTES - 16))
        return found

    def _note(self, what: Message, attributes: dict[int, bytes]) -> None:
        if text_of(attributes.get(1, b"")) != self._table or what not in _WHAT:
            return
        name = _NAMES.get(what)
        subject = f" {text_of(attributes.get(name, b''))}" if name is not None else ""
        self._words[_WHAT[what] + subject] = None
        self._count += 1

    def _sentence(self, generation: bytes) -> str:
        if not self._count:
            return ""
        found = wire.table_of(generation)
        name = text_of(found.get(_PROCESS_NAME, b"")) or "somebody"
        process = u32_of(found[_PROCESS_ID]) if _PROCESS_ID in found else 0
        who = f"{name} (process {process})" if process else name
        # Deleting a table tells of all that was in it as well; the last word says it all.
        whole = _WHAT[Message.DELTABLE]
        words = [whole] if whole in self._words else list(self._words)
        more = len(words) - _NAMED_CHANGES
        text = ", ".join(words[:_NAMED_CHANGES]) + (f" and {more} more changes" if more > 0 else "")
        self._words.clear()
        self._count = 0
        return f"{who} {text}"
