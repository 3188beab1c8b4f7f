"""Names of the nftables mode's table, chains, sets and maps. Pure.

The names, and the hashes in those of services and endpoints, are kube-proxy's (`pkg/proxy/nftables/proxier.go`).
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Final

from netkit.proxy.endpoints import Endpoint
from netkit.proxy.services import ServicePortName

TABLE: Final = "kube-proxy"

FILTER_PREROUTING: Final = "filter-prerouting-pre-dnat"
FILTER_OUTPUT_PRE_DNAT: Final = "filter-output-pre-dnat"
FILTER_INPUT, FILTER_FORWARD, FILTER_OUTPUT = "filter-input", "filter-forward", "filter-output"
NAT_PREROUTING, NAT_OUTPUT, NAT_POSTROUTING = "nat-prerouting", "nat-output", "nat-postrouting"

SERVICES: Final = "services"
SERVICE_IPS, SERVICE_NODEPORTS = "service-ips", "service-nodeports"
NODEPORT_IPS: Final = "nodeport-ips"
CLUSTER_IPS: Final = "cluster-ips"
CLUSTER_IPS_CHECK: Final = "cluster-ips-check"
SERVICE_ENDPOINTS_CHECK, NODEPORT_ENDPOINTS_CHECK = "service-endpoints-check", "nodeport-endpoints-check"
NO_ENDPOINT_SERVICES, NO_ENDPOINT_NODEPORTS = "no-endpoint-services", "no-endpoint-nodeports"
REJECT: Final = "reject-chain"
FIREWALL_IPS, FIREWALL_CHECK = "firewall-ips", "firewall-check"
MARK_MASQ, MASQUERADING = "mark-for-masquerade", "masquerading"

CLUSTER_PREFIX, LOCAL_PREFIX, EXTERNAL_PREFIX = "service-", "local-", "external-"
FIREWALL_PREFIX, ENDPOINT_PREFIX, AFFINITY_PREFIX = "firewall-", "endpoint-", "affinity-"

_BASE_LENGTH: Final = 240
"""What is left of a name's 256 characters after the longest prefix."""
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Base32 ten bits at a time, which is several times as fast as the library's."""


def hashed(text: str) -> str:
    """The text behind the first eight characters of the base32 of its SHA-256, cut to what a name can hold."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:5], "big")
    head = (
        _PAIRS[number >> 30]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )
    name = f"{head}-{text}"
    return name if len(name) <= _BASE_LENGTH else f"{name[: _BASE_LENGTH - 3]}..."


def port_text(name: ServicePortName) -> str:
    """`namespace/name/protocol/portname`, the part of names that belongs to a service port."""
    return f"{name.namespace}/{name.name}/{name.protocol.lower()}/{name.port}"


def port_base(name: ServicePortName) -> str:
    """What the names of a service port's chains end with."""
    return hashed(port_text(name))


def endpoint_base(port: str, endpoint: Endpoint) -> str:
    """What the names of an endpoint's chain and affinity set end with; `port` is the `port_text`."""
    target = endpoint.target
    if target[0] == "[":
        address, _, number = target.rpartition("]:")
        return hashed(f"{port}__{address[1:].replace(':', '.')}/{number}")
    address, _, number = target.rpartition(":")
    return hashed(f"{port}__{address}/{number}")


def is_service_chain(name: str) -> bool:
    """Whether a chain belongs to a service port or endpoint: only their names have a slash."""
    return "/" in name


def set_id(chain: str) -> int:
    """The number by which a transaction's messages name the chain's anonymous set."""
    return zlib.crc32(chain.encode()) or 1


def set_name(chain: str, contents: bytes) -> str:
    """The name of the chain's anonymous set, which nobody sees; for other contents it is another.

    Left to itself the kernel looks for a free number, and reads the names of all sets to find one. It still compares
    a new set's name with all others, three times over, which is most of a full load; eight bytes fit where such names
    are kept more closely, and a fifth of that time is saved.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(chain.encode() + contents).digest()[:6])[:7].decode()
