"""Who did what to a table, from the kernel's notifications."""

from __future__ import annotations

import struct

from netkit.kernel.nft import wire
from netkit.kernel.nft.events import Changes
from netkit.kernel.nft.expressions import Code, Verdict
from netkit.kernel.nft.objects import Chain, TableWriter
from netkit.kernel.nft.wire import Message, message, text_attribute, u32_attribute

OURS, NFT = 77, 1234
WRITER = TableWriter(wire.NFPROTO_IPV4, "kube-proxy")


def told(port_id: int, *messages: bytes) -> bytes:
    """The messages as the kernel sends them on, from the socket with this port id."""
    found = b""
    for item in messages:
        padded = item + bytes(-len(item) & 3)
        found += padded[:12] + struct.pack("=I", port_id) + padded[16:]
    return found


def generation(process: int = NFT, name: str = "nft") -> bytes:
    body = u32_attribute(1, 5) + u32_attribute(2, process) + text_attribute(3, name)
    return message(Message.NEWGEN, 0, body)


RULE = WRITER.add_rule("services", [Verdict(Code.DROP)])


def test_others_changes_are_told_once_their_transaction_is_complete() -> None:
    changes = Changes(wire.NFPROTO_IPV4, "kube-proxy")
    assert changes.read(told(NFT, RULE)) == ""
    assert changes.read(told(NFT, generation())) == "nft (process 1234) added a rule to chain services"
    assert changes.read(told(NFT, generation())) == ""


def test_ours_and_those_of_other_tables_are_not() -> None:
    changes = Changes(wire.NFPROTO_IPV4, "kube-proxy")
    changes.own.add(OURS)
    elsewhere = TableWriter(wire.NFPROTO_IPV4, "filter").add_chain(Chain("c"))
    other_family = TableWriter(wire.NFPROTO_IPV6, "kube-proxy").add_chain(Chain("c"))
    assert changes.read(told(OURS, RULE, generation())) == ""
    assert changes.read(told(NFT, elsewhere, other_family, generation())) == ""


def test_deleting_the_table_is_one_thing_and_many_are_counted() -> None:
    changes = Changes(wire.NFPROTO_IPV4, "kube-proxy")
    whole = told(NFT, WRITER.flush_chain("a"), WRITER.delete_chain("a"), WRITER.delete_table(), generation())
    assert changes.read(whole) == "nft (process 1234) deleted the table"
    many = told(NFT, *(WRITER.add_chain(Chain(name)) for name in "abcde"), generation())
    assert changes.read(many) == (
        "nft (process 1234) added or changed chain a, added or changed chain b, added or changed chain c "
        "and 2 more changes"
    )
