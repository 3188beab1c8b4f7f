"""Rules for IP addresses that lead to endpoints, shared by Endpoints, EndpointSlice and Service. Pure."""

from __future__ import annotations

import ipaddress

from controlplane.resources.rules import INVALID_IP, Field


def reachable_ip(field: Field) -> Field:
    """A valid address that is not unspecified, loopback or link-local (upstream's `ValidateNonSpecialIP`)."""
    try:
        address = ipaddress.ip_address(field.text)
    except ValueError:
        return field.ip() if field.present else field.of("").invalid(INVALID_IP)
    for wrong, detail in (
        (address.is_unspecified, "may not be unspecified (0.0.0.0 or ::)"),
        (address.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            _link_local_multicast(address),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ):
        if wrong:
            field.invalid(detail)
    return field


_MULTICAST_4 = ipaddress.IPv4Network("224.0.0.0/24")
_MULTICAST_6 = ipaddress.IPv6Network("ff02::/16")


def _link_local_multicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address in (_MULTICAST_4 if isinstance(address, ipaddress.IPv4Address) else _MULTICAST_6)
