"""What rules of the nftables mode are made of, for one address family: fields, matches, lookups. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from netkit.kernel.nft import datatypes, wire
from netkit.kernel.nft.datatypes import INET_PROTO, INET_SERVICE, DataType
from netkit.kernel.nft.expressions import (
    Bitwise,
    Cmp,
    Code,
    Ct,
    CtKey,
    Expression,
    Header,
    Lookup,
    Meta,
    MetaKey,
    MetaSet,
    Op,
    Payload,
    Reject,
    Verdict,
)
from netkit.proxy.addresses import Address, Family, Network
from netkit.proxy.detector import Detector, SourceDetector
from netkit.proxy.nftables.names import MARK_MASQ
from netkit.proxy.services import Protocol

PROTOCOL_NUMBERS: Final = {Protocol.TCP: b"\x06", Protocol.UDP: b"\x11", Protocol.SCTP: b"\x84"}
_IFNAME_BYTES: Final = 16
_CT_NEW: Final = 8
_CT_DNAT: Final = 0x20
JUMP_MARK_MASQ: Final = Verdict(Code.JUMP, MARK_MASQ)

Rule = tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The family's fields. Keys of maps are `address . protocol . port`, registers counted from 0."""

    family: Family

    @property
    def number(self) -> int:
        """The kernel's number of the family."""
        return wire.NFPROTO_IPV6 if self.family is Family.IPV6 else wire.NFPROTO_IPV4

    @property
    def address(self) -> DataType:
        return datatypes.IPV6_ADDR if self.family is Family.IPV6 else datatypes.IPV4_ADDR

    @property
    def words(self) -> int:
        """How many 32 bit registers an address takes."""
        return self.address.length // 4

    @property
    def service_key(self) -> tuple[DataType, ...]:
        """The type of keys that name an address, a protocol and a port."""
        return (self.address, INET_PROTO, INET_SERVICE)

    @property
    def loopback(self) -> Network:
        return ip_network("::1/128" if self.family is Family.IPV6 else "127.0.0.0/8")

    def saddr(self, reg: int = 0) -> Payload:
        return Payload(Header.NETWORK, 8 if self.family is Family.IPV6 else 12, self.address.length, reg)

    def daddr(self, reg: int = 0) -> Payload:
        return Payload(Header.NETWORK, 24 if self.family is Family.IPV6 else 16, self.address.length, reg)

    def called(self, reg: int = 0) -> Rule:
        """Load the address, protocol and port that is called, the key of the maps of services."""
        return (self.daddr(reg), *protocol_and_port(reg + self.words))

    def reject(self) -> Reject:
        """Refuse with the family's ICMP "port unreachable"."""
        return Reject(4 if self.family is Family.IPV6 else 3)

    def inside(self, field: Payload, network: Network, *, negate: bool = False) -> Rule:
        """Match a prefix the way nft does: whole bytes are compared, else bits are masked out."""
        op = Op.NEQ if negate else Op.EQ
        length, rest = divmod(network.prefixlen, 8)
        packed = network.network_address.packed
        if not rest and length:
            return (
                Payload(field.header, field.offset, length, field.reg),
                Cmp(op, packed[:length], field.reg),
            )
        return (
            field,
            Bitwise(network.netmask.packed, bytes(len(packed)), field.reg),
            Cmp(op, packed, field.reg),
        )

    def equals(self, field: Payload, address: Address) -> Rule:
        return (field, Cmp(Op.EQ, address.packed, field.reg))

    def local(self, detector: Detector, *, negate: bool = False) -> Rule:
        """Match traffic the detector calls local, or all other."""
        if isinstance(detector, SourceDetector):
            return self.inside(self.saddr(), detector.network, negate=negate)
        name = detector.name.encode()
        data = name if detector.prefix else name + bytes(_IFNAME_BYTES - len(name))
        return (Meta(MetaKey.IIFNAME), Cmp(Op.NEQ if negate else Op.EQ, data))

    def service_value(self, address: Address, protocol: Protocol, port: int) -> bytes:
        """The key of the maps of services."""
        return address.packed + PROTOCOL_NUMBERS[protocol] + b"\0\0\0" + port.to_bytes(2, "big") + b"\0\0"


def protocol_and_port(reg: int = 0) -> Rule:
    """Load protocol and port that is called, the key of the maps of node ports."""
    return (Meta(MetaKey.L4PROTO, reg), Payload(Header.TRANSPORT, 2, 2, reg + 1))


def node_port_value(protocol: Protocol, port: int) -> bytes:
    """The key of the maps of node ports."""
    return PROTOCOL_NUMBERS[protocol] + b"\0\0\0" + port.to_bytes(2, "big") + b"\0\0"


def in_set(name: str, reg: int = 0) -> Lookup:
    return Lookup(name, reg)


def verdict_of(name: str, reg: int = 0) -> Lookup:
    return Lookup(name, reg, verdict=True)


def new_connection() -> Rule:
    """Match the first packet of a connection."""
    return (
        Ct(CtKey.STATE),
        Bitwise(_host(_CT_NEW), bytes(4)),
        Cmp(Op.NEQ, bytes(4)),
    )


def translated() -> Rule:
    """Match connections whose destination was rewritten."""
    return (Ct(CtKey.STATUS), Bitwise(_host(_CT_DNAT), bytes(4)), Cmp(Op.NEQ, bytes(4)))


def set_mark(mark: int) -> Rule:
    """Set the bits of `mark` and leave the others."""
    return (
        Meta(MetaKey.MARK),
        Bitwise(_host(0xFFFFFFFF ^ mark), _host(mark)),
        MetaSet(MetaKey.MARK),
    )


def flip_mark(mark: int) -> Rule:
    """Turn the bits of `mark` round and leave the others."""
    return (Meta(MetaKey.MARK), Bitwise(_host(0xFFFFFFFF), _host(mark)), MetaSet(MetaKey.MARK))


def unmarked(mark: int) -> Rule:
    """Match packets without the bits of `mark`."""
    return (Meta(MetaKey.MARK), Bitwise(_host(mark), bytes(4)), Cmp(Op.EQ, bytes(4)))


def _host(number: int) -> bytes:
    return datatypes.MARK.pack(number)
