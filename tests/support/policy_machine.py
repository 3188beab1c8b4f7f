"""A kernel for policy tables in a few lines: runs one packet through the chains of a table's contents."""

from __future__ import annotations

import ipaddress
import struct

from netkit.kernel.nft.expressions import (
    Bitwise,
    Cmp,
    Code,
    Counter,
    Ct,
    Header,
    Lookup,
    Meta,
    Op,
    Payload,
    Verdict,
    decode,
)
from netkit.kernel.nft.objects import Contents, spans_of

_NEW = 8


class Packet:
    """The first packet of a connection."""

    def __init__(self, source: str, destination: str, protocol: int, port: int) -> None:
        self.source = ipaddress.ip_address(source).packed
        self.destination = ipaddress.ip_address(destination).packed
        self.protocol = protocol
        self.port = port

    def field(self, item: Payload) -> bytes:
        if item.header is Header.TRANSPORT:
            assert (item.offset, item.length) == (2, 2)
            return struct.pack("!H", self.port)
        length = len(self.source)
        assert item.length == length
        return {12: self.source, 8: self.source, 16: self.destination, 24: self.destination}[item.offset]


def passes(contents: Contents | None, packet: Packet, hook: str = "forward") -> bool:
    """Whether the packet gets through all chains on the hook."""
    if contents is None:
        return True
    hooked = [c for c in contents.chains.values() if c.hook is not None and c.hook.hook == hook]
    ordered = sorted(hooked, key=lambda chain: chain.hook.priority if chain.hook else 0)
    return all(_run(contents, chain.name, packet) is not Code.DROP for chain in ordered)


def _run(contents: Contents, chain: str, packet: Packet) -> Code | None:
    for rule in contents.rules[chain]:
        verdict = _rule(contents, rule.expressions, packet)
        if verdict is None:
            continue
        if verdict.code in (Code.ACCEPT, Code.DROP):
            return verdict.code
        found = _run(contents, verdict.chain, packet)
        if found is not None or verdict.code is Code.GOTO:
            return found
    return None


def _rule(contents: Contents, expressions: bytes, packet: Packet) -> Verdict | None:
    registers = bytearray(64)

    def store(slot: int, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        registers[slot * 4 : slot * 4 + len(padded)] = padded

    for item in decode(expressions):
        match item:
            case Payload():
                store(item.reg, packet.field(item))
            case Meta():
                store(item.reg, bytes((packet.protocol,)))
            case Ct():
                store(item.reg, _NEW.to_bytes(4, "little"))
            case Bitwise():
                data = registers[item.reg * 4 : item.reg * 4 + len(item.mask)]
                store(item.reg, bytes(a & b for a, b in zip(data, item.mask, strict=True)))
            case Cmp():
                same = bytes(registers[item.reg * 4 : item.reg * 4 + len(item.data)]) == item.data
                if same is not (item.op is Op.EQ):
                    return None
            case Lookup():
                spec = contents.sets[item.set_name]
                key = bytes(registers[item.reg * 4 : item.reg * 4 + spec.key_bytes])
                found = _find(contents, item.set_name, key)
                if found is None:
                    return None
                if item.verdict:
                    assert isinstance(found, Verdict)
                    return found
            case Counter():
                pass
            case Verdict():
                return item
            case _:
                raise AssertionError(f"no policy has {item}")
    return None


def _find(contents: Contents, name: str, key: bytes) -> object:
    spec, elements = contents.sets[name], contents.elements[name]
    if spec.interval and len(spec.key) == 1:
        number = int.from_bytes(key, "big")
        return True if any(a <= number <= b for a, b in spans_of(elements)) else None
    for element in elements:
        if element.end is not None and element.key <= key <= element.end and element.key[:4] == key[:4]:
            return True
        if element.key == key:
            return True if element.data is None else element.data
    return None
