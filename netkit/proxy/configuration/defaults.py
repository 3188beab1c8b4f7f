"""The defaults of KubeProxyConfiguration, as upstream's for Linux. Pure."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from netkit.proxy.configuration.addresses import parse_ip, split_host_port
from netkit.proxy.configuration.document import PRIMARY, KubeProxyConfiguration
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ProxyMode

HEALTHZ_PORT = 10256
METRICS_PORT = 10249
OOM_SCORE_ADJ = -999
MASQUERADE_BIT = 14
SYNC_PERIOD = Duration.of(30)
MIN_SYNC_PERIOD = Duration.of(1)
_CONTENT_TYPE = "application/vnd.kubernetes.protobuf"

T = TypeVar("T")


def with_defaults(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """What a file leaves out, filled in. Safe to repeat."""
    bind = config.bind_address or "0.0.0.0"
    ipv4 = getattr(parse_ip(bind), "version", 6) == 4
    healthz, metrics = ("0.0.0.0", "127.0.0.1") if ipv4 else ("[::]", "[::1]")
    filled = _fill(
        config,
        bind_address=bind,
        healthz_bind_address=f"{healthz}:{HEALTHZ_PORT}",
        metrics_bind_address=f"{metrics}:{METRICS_PORT}",
        oom_score_adj=OOM_SCORE_ADJ,
        config_sync_period=Duration.of(15 * 60),
    )
    return replace(
        filled,
        healthz_bind_address=with_port(filled.healthz_bind_address, HEALTHZ_PORT),
        metrics_bind_address=with_port(filled.metrics_bind_address, METRICS_PORT),
        iptables=_fill(
            config.iptables,
            masquerade_bit=MASQUERADE_BIT,
            localhost_node_ports=True,
            sync_period=SYNC_PERIOD,
            min_sync_period=MIN_SYNC_PERIOD,
        ),
        ipvs=_fill(config.ipvs, sync_period=SYNC_PERIOD),
        nftables=_fill(
            config.nftables,
            masquerade_bit=MASQUERADE_BIT,
            sync_period=SYNC_PERIOD,
            min_sync_period=MIN_SYNC_PERIOD,
        ),
        conntrack=_fill(
            config.conntrack,
            max_per_core=32 * 1024,
            min=128 * 1024,
            tcp_established_timeout=Duration.of(24 * 3600),
            tcp_close_wait_timeout=Duration.of(3600),
        ),
        client_connection=_fill(config.client_connection, content_type=_CONTENT_TYPE, qps=5.0, burst=10),
        logging=_fill(config.logging, format="text", flush_frequency=Duration.of(5)),
    )


def for_linux(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """What is left open is decided: the mode, how pods are recognised, and where NodePorts answer in nftables mode."""
    config = _fill(config, mode=str(ProxyMode.IPTABLES), detect_local_mode=str(DetectLocalMode.CLUSTER_CIDR))
    if config.mode == ProxyMode.NFTABLES and not config.node_port_addresses:
        return replace(config, node_port_addresses=(PRIMARY,))
    return config


def with_port(address: str, port: int) -> str:
    """The address with `port`, unless it has one already; text that is no address stays as it is."""
    if split_host_port(address) is not None:
        return address
    ip = parse_ip(address)
    if ip is None:
        return address
    return f"{address}:{port}" if ip.version == 4 else f"[{address}]:{port}"


def _fill(section: T, **defaults: Any) -> T:
    """The section with `defaults` in the fields that were not given.

    Where upstream has a pointer, only its absence counts (None); everywhere else zero is as good as nothing.
    """
    unset = {member.name: member.default for member in fields(section)}  # type: ignore[arg-type]
    changes = {name: value for name, value in defaults.items() if getattr(section, name) == unset[name]}
    return replace(section, **changes)  # type: ignore[type-var]
