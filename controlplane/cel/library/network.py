"""ip, isIP, cidr, isCIDR and what can be asked of addresses and networks, as Go's net/netip has it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from controlplane.cel.functions import Function, member, plain, unwrap, wrap
from controlplane.cel.types import BOOL, CIDR, INT, IP, STRING

Address = IPv4Address | IPv6Address


def _parse_ip(text: str) -> Address:
    if "%" in text:
        raise ValueError(f'IP address "{text}" with zone value is not allowed')
    try:
        address = ip_address(text)
    except ValueError as fault:
        raise ValueError(
            f'IP Address "{text}" parse error during conversion from string: '
            f'ParseAddr("{text}"): unable to parse IP'
        ) from fault
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f'IPv4-mapped IPv6 address "{text}" is not allowed')
    return address


def _ip(text: str) -> dict[str, Any]:
    return wrap(IP, str(_parse_ip(text)))


def _is_ip(text: str) -> bool:
    try:
        _parse_ip(text)
    except ValueError:
        return False
    return True


def _is_canonical(text: str) -> bool:
    return str(_parse_ip(text)) == text


def _address(value: Any) -> Address:
    return ip_address(unwrap(IP, value))


def _family(value: Any) -> int:
    return _address(value).version


def _is_unspecified(value: Any) -> bool:
    return _address(value).is_unspecified


def _is_loopback(value: Any) -> bool:
    return _address(value).is_loopback


def _is_link_local_multicast(value: Any) -> bool:
    address = _address(value)
    if isinstance(address, IPv4Address):
        return address.packed[:3] == b"\xe0\x00\x00"
    return address.packed[0] == 0xFF and address.packed[1] & 0x0F == 0x02


def _is_link_local_unicast(value: Any) -> bool:
    address = _address(value)
    return address.is_link_local and not address.is_multicast


def _is_global_unicast(value: Any) -> bool:
    address = _address(value)
    if isinstance(address, IPv4Address) and address == IPv4Address("255.255.255.255"):
        return False
    return not (
        address.is_unspecified or address.is_loopback or address.is_multicast or _is_link_local_unicast(value)
    )


def _parse_cidr(text: str) -> tuple[Address, int]:
    """Address and prefix length; the address keeps its host bits."""
    head, slash, bits = text.partition("/")
    why = ""
    if not slash:
        why = "no '/'"
    elif not bits.isascii() or not bits.isdigit() or (len(bits) > 1 and bits[0] == "0"):
        why = f'bad bits after slash: "{bits}"'
    if not why:
        try:
            address = _parse_ip(head)
            if int(bits) > address.max_prefixlen:
                why = "prefix length out of range"
            else:
                return address, int(bits)
        except ValueError as fault:
            if "not allowed" in str(fault):
                raise
            why = f'ParseAddr("{head}"): unable to parse IP'
    raise ValueError(
        f'network address parse error during conversion from string: netip.ParsePrefix("{text}"): {why}'
    )


def _cidr(text: str) -> dict[str, Any]:
    address, bits = _parse_cidr(text)
    return wrap(CIDR, f"{address}/{bits}")


def _is_cidr(text: str) -> bool:
    try:
        _parse_cidr(text)
    except ValueError:
        return False
    return True


def _network(value: Any) -> Any:
    text = value if isinstance(value, str) else unwrap(CIDR, value)
    address, bits = _parse_cidr(text)
    return ip_network(f"{address}/{bits}", strict=False)


def _contains_ip(value: Any, other: Any) -> bool:
    address = _parse_ip(other) if isinstance(other, str) else _address(other)
    network = _network(value)
    return bool(address.version == network.version and address in network)


def _contains_cidr(value: Any, other: Any) -> bool:
    outer, inner = _network(value), _network(other)
    return bool(outer.version == inner.version and inner.subnet_of(outer))


def _cidr_ip(value: Any) -> dict[str, Any]:
    return wrap(IP, unwrap(CIDR, value).partition("/")[0])


def _masked(value: Any) -> dict[str, Any]:
    return wrap(CIDR, str(_network(value)))


def _prefix_length(value: Any) -> int:
    return int(unwrap(CIDR, value).partition("/")[2])


FUNCTIONS: tuple[Function, ...] = (
    plain("ip", _ip, ("string_to_ip", (STRING,), IP)),
    plain("isIP", _is_ip, ("is_ip", (STRING,), BOOL)),
    plain("ip.isCanonical", _is_canonical, ("ip_is_canonical", (STRING,), BOOL)),
    member("family", _family, ("ip_family", (IP,), INT)),
    member("isUnspecified", _is_unspecified, ("ip_is_unspecified", (IP,), BOOL)),
    member("isLoopback", _is_loopback, ("ip_is_loopback", (IP,), BOOL)),
    member("isLinkLocalMulticast", _is_link_local_multicast, ("ip_is_link_local_multicast", (IP,), BOOL)),
    member("isLinkLocalUnicast", _is_link_local_unicast, ("ip_is_link_local_unicast", (IP,), BOOL)),
    member("isGlobalUnicast", _is_global_unicast, ("ip_is_global_unicast", (IP,), BOOL)),
    plain("cidr", _cidr, ("string_to_cidr", (STRING,), CIDR)),
    plain("isCIDR", _is_cidr, ("is_cidr", (STRING,), BOOL)),
    member(
        "containsIP",
        _contains_ip,
        ("cidr_contains_ip_string", (CIDR, STRING), BOOL),
        ("cidr_contains_ip_ip", (CIDR, IP), BOOL),
    ),
    member(
        "containsCIDR",
        _contains_cidr,
        ("cidr_contains_cidr_string", (CIDR, STRING), BOOL),
        ("cidr_contains_cidr", (CIDR, CIDR), BOOL),
    ),
    member("ip", _cidr_ip, ("cidr_ip", (CIDR,), IP)),
    member("masked", _masked, ("cidr_masked", (CIDR,), CIDR)),
    member("prefixLength", _prefix_length, ("cidr_prefix_length", (CIDR,), INT)),
)
