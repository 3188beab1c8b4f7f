"""From a KubeProxyConfiguration to what a proxy works with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from netkit.proxy.addresses import Address, Family
from netkit.proxy.configuration.addresses import (
    are_dual_stack,
    family_of,
    parse_cidr,
    parse_ip,
    split_host_port,
)
from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.document import PRIMARY, KubeProxyConfiguration
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import ConntrackSettings, IPVSSettings, ProxyMode, ProxySettings


def primary_family(config: KubeProxyConfiguration, node_addresses: Sequence[Address]) -> Family:
    """The family of bindAddress, if that is an address of the node; else that of the Node's first; else IPv4."""
    bound = _bound(config)
    if bound is not None:
        return family_of(bound)
    return family_of(node_addresses[0]) if node_addresses else Family.IPV4


def primary_addresses(
    config: KubeProxyConfiguration, node_addresses: Sequence[Address]
) -> tuple[Address, ...]:
    """The node's address of each family, the primary one first: bindAddress, else the Node's first of the family."""
    bound = _bound(config)
    found: dict[Family, Address] = {family_of(bound): bound} if bound is not None else {}
    for address in node_addresses:
        found.setdefault(family_of(address), address)
    return tuple(found.values())


def proxy_settings(config: KubeProxyConfiguration, node_addresses: Sequence[Address] = ()) -> ProxySettings:
    """The settings of a configuration that is valid and complete. `node_addresses`: the Node's InternalIPs.

    Without bindAddress the node's addresses are left open: the proxy follows its Node. NodePorts on the `primary`
    addresses answer on those the Node has now, as upstream.
    """
    primary = primary_addresses(config, node_addresses)
    section, masquerading = config.sync_section, config.masquerade_section
    return ProxySettings(
        mode=ProxyMode(config.mode),
        nftables_layout=config.layout,
        ipvs=_ipvs(config),
        conntrack=_conntrack(config),
        cluster_cidr=config.cluster_cidr,
        detect_local_mode=DetectLocalMode(config.detect_local_mode),
        bridge_interface=config.detect_local.bridge_interface,
        interface_name_prefix=config.detect_local.interface_name_prefix,
        masquerade_all=masquerading.masquerade_all,
        masquerade_bit=14 if masquerading.masquerade_bit is None else masquerading.masquerade_bit,
        localhost_node_ports=config.iptables.localhost_node_ports is not False,
        node_port_addresses=_node_port_addresses(config, primary),
        node_address=",".join(map(str, primary)) if _bound(config) is not None else "",
        min_sync_period=section.min_sync_period.seconds,
        sync_period=section.sync_period.seconds,
        healthz_bind_address=config.healthz_bind_address,
        metrics_bind_address=config.metrics_bind_address,
        bind_address_hard_fail=config.bind_address_hard_fail,
        enable_profiling=config.enable_profiling,
    )


def _bound(config: KubeProxyConfiguration) -> Address | None:
    """bindAddress, unless it is an "any" address, which says nothing about the node."""
    address = parse_ip(config.bind_address)
    return None if address is None or address.is_unspecified else address


def _node_port_addresses(config: KubeProxyConfiguration, primary: Sequence[Address]) -> tuple[str, ...]:
    ranges = config.node_port_addresses or ()
    if ranges != (PRIMARY,):
        return ranges
    return tuple(f"{address}/{address.max_prefixlen}" for address in primary if not address.is_loopback)


def _ipvs(config: KubeProxyConfiguration) -> IPVSSettings:
    ipvs = config.ipvs
    return IPVSSettings(
        scheduler=ipvs.scheduler or "rr",
        exclude_cidrs=ipvs.exclude_cidrs or (),
        strict_arp=ipvs.strict_arp,
        tcp_timeout=ipvs.tcp_timeout.seconds,
        tcp_fin_timeout=ipvs.tcp_fin_timeout.seconds,
        udp_timeout=ipvs.udp_timeout.seconds,
    )


def _conntrack(config: KubeProxyConfiguration) -> ConntrackSettings:
    conntrack = config.conntrack
    return ConntrackSettings(
        max_per_core=conntrack.max_per_core or 0,
        minimum=conntrack.min or 0,
        tcp_established_timeout=_seconds(conntrack.tcp_established_timeout),
        tcp_close_wait_timeout=_seconds(conntrack.tcp_close_wait_timeout),
        tcp_be_liberal=conntrack.tcp_be_liberal,
        udp_timeout=conntrack.udp_timeout.seconds,
        udp_stream_timeout=conntrack.udp_stream_timeout.seconds,
    )


def _seconds(timeout: Duration | None) -> float:
    return timeout.seconds if timeout is not None else 0.0


def doubts(
    config: KubeProxyConfiguration,
    settings: ProxySettings,
    primary: Family,
    pod_cidrs: Sequence[str],
    *,
    dual: bool,
) -> list[str]:
    """What is allowed and probably not meant; `dual`: both families are proxied. `settings` are the configuration's.

    Raises ConfigurationError for what cannot work at all: pods could never be recognised.
    """
    other = Family.IPV6 if primary is Family.IPV4 else Family.IPV4
    cluster = f"{primary}-{'primary' if dual else 'only'}"
    found = _node_port_doubts(config, settings, primary, other, pod_cidrs)
    fatal = False
    if _all_of(config.cluster_cidrs, other):
        found.append(f"cluster is {cluster} but clusterCIDRs contains only {other} addresses")
        fatal = settings.detect_local_mode is DetectLocalMode.CLUSTER_CIDR and not dual
    if _all_of(pod_cidrs, other):
        found.append(f"cluster is {cluster} but node.spec.podCIDRs contains only {other} addresses")
        fatal = fatal or settings.detect_local_mode is DetectLocalMode.NODE_CIDR
    if not dual:
        if _all_of(config.ipvs.exclude_cidrs or (), other):
            found.append(f"cluster is {cluster} but ipvs.excludeCIDRs contains only {other} addresses")
        for name, address in (
            ("healthzBindAddress", config.healthz_bind_address),
            ("metricsBindAddress", config.metrics_bind_address),
        ):
            host = parse_ip((split_host_port(address) or ("", ""))[0])
            if host is not None and not host.is_unspecified and family_of(host) is other:
                found.append(f"cluster is {cluster} but {name} is {other}")
    if fatal:
        raise ConfigurationError(f"kube-proxy configuration is incorrect: {found[-1]}")
    return found


def _node_port_doubts(
    config: KubeProxyConfiguration,
    settings: ProxySettings,
    primary: Family,
    other: Family,
    pod_cidrs: Sequence[str],
) -> list[str]:
    ranges = settings.node_port_addresses
    of_primary = [text for text in ranges if _is_of(text, primary)]
    both = any(
        are_dual_stack(texts)
        for texts in (config.cluster_cidrs, ranges, config.ipvs.exclude_cidrs or (), pod_cidrs)
    )
    if not ranges:
        return [
            "nodePortAddresses is unset; NodePort connections will be accepted on all local IPs."
            " Consider using `--nodeport-addresses primary`"
        ]
    if both and len(of_primary) == len(ranges):
        return [
            f"cluster appears to be dual-stack but nodePortAddresses contains only {primary} addresses;"
            f" NodePort connections will be accepted on all local {other} IPs"
        ]
    if not of_primary:
        return [
            f"cluster appears to be {primary}-primary but nodePortAddresses contains only {other} addresses;"
            f" NodePort connections will be accepted on all local {primary} IPs"
        ]
    return []


def _all_of(ranges: Sequence[str], family: Family) -> bool:
    """Whether there are ranges, and all are of the family."""
    return bool(ranges) and all(_is_of(text, family) for text in ranges)


def _is_of(text: str, family: Family) -> bool:
    network = parse_cidr(text)
    return network is not None and family_of(network) is family
