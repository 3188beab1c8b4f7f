"""Addresses in a configuration, as Go's parsers take them ("sloppy": leading zeros of IPv4 count as decimal).

Pure. Answers with None instead of an error: validation has words of its own for each field.
"""

from __future__ import annotations

from collections.abc import Sequence

from netkit.proxy.addresses import Address, Family, Network, parse_address, parse_network


def parse_ip(text: str) -> Address | None:
    """An address without spaces, brackets, zone or port."""
    if text != text.strip() or "%" in text:
        return None
    try:
        return parse_address(text)
    except ValueError:
        return None


def parse_cidr(text: str) -> Network | None:
    """A range with a prefix length in digits."""
    address, _, length = text.partition("/")
    if parse_ip(address) is None or not (length.isascii() and length.isdigit()):
        return None
    try:
        return parse_network(text)
    except ValueError:
        return None


def family_of(value: Address | Network) -> Family:
    """The family of an address or a range."""
    return Family.IPV4 if value.version == 4 else Family.IPV6


def are_dual_stack(ranges: Sequence[str]) -> bool:
    """Whether the ranges, all of them valid, are of both families."""
    return {network.version for text in ranges if (network := parse_cidr(text))} == {4, 6}


def split_host_port(text: str) -> tuple[str, str] | None:
    """Host and port of `host:port` or `[host]:port`, neither of them looked at; None if it is not of that form."""
    host, colon, port = text.rpartition(":")
    if not colon:
        return None
    if host.startswith("["):
        if not host.endswith("]"):
            return None
        host = host[1:-1]
    elif ":" in host:
        return None
    return None if any(mark in host + port for mark in "[]") else (host, port)


def atoi(text: str) -> int | None:
    """A decimal number with an optional sign, as Go's Atoi reads it."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() else None
