"""Whether a KubeProxyConfiguration can be used: upstream's checks, paths and words.

Pure. Takes a configuration that has its defaults. Paths are those of upstream's internal type, which is what its users
see and search for: `KubeProxyConfiguration.KubeProxyIPVSConfiguration.TCPTimeout`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from controlplane.errors import Cause
from controlplane.resources.fieldpath import Literal, child, index, invalid, not_supported
from netkit.proxy.configuration.addresses import are_dual_stack, atoi, parse_cidr, parse_ip, split_host_port
from netkit.proxy.configuration.decode import ConfigurationError
from netkit.proxy.configuration.document import (
    PRIMARY,
    KubeProxyConfiguration,
    KubeProxyConntrackConfiguration,
    KubeProxyIPVSConfiguration,
    LoggingConfiguration,
)
from netkit.proxy.configuration.durations import ZERO, Duration
from netkit.proxy.detector import DetectLocalMode
from netkit.proxy.settings import NftablesLayout, ProxyMode

_ROOT = "KubeProxyConfiguration"
_POSITIVE = "must be greater than 0"
_NOT_NEGATIVE = "must be greater than or equal to 0"
_BIT_RANGE = "must be within the range [0, 31]"
_PAIR = (
    "must be a either a single CIDR or dual-stack pair of CIDRs (e.g. [10.100.0.0/16, fde4:8dba:82e1::/48]"
)
_ONE = "must be a valid CIDR block (e.g. 10.100.0.0/16 or fde4:8dba:82e1::/48)"
_MODES = f"must be {', '.join(sorted(ProxyMode))} or blank (blank means the best-available proxy [currently iptables])"
_LOCAL_MODES = (*DetectLocalMode, "")
_FORMATS = ("text", "json")
_MAXIMUM_VERBOSITY = 2**31 - 1


def validated(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """The configuration itself. Raises ConfigurationError that names every fault."""
    faults = validate(config)
    if not faults:
        return config
    lines = [f"{cause.field}: {cause.message}" for cause in faults]
    raise ConfigurationError(
        f"failed validate: {lines[0] if len(lines) == 1 else '[' + ', '.join(lines) + ']'}"
    )


def validate(config: KubeProxyConfiguration) -> Sequence[Cause]:
    """What is wrong, in upstream's order; empty if nothing is."""
    groups: tuple[Iterable[Cause], ...] = (
        _masquerade_bits(config),
        _ipvs(config.ipvs, child(_ROOT, "KubeProxyIPVSConfiguration"))
        if config.mode == ProxyMode.IPVS
        else (),
        _linux(config),
        _modes(config),
        _periods(config),
        _binding(config),
        _port_range(config.port_range),
        node_port_addresses(config.node_port_addresses or (), child(_ROOT, "NodePortAddresses")),
        _hidden_metrics(config.show_hidden_metrics_for_version),
        _detect_local(config),
        _logging(config.logging, child(_ROOT, "logging")),
    )
    return tuple(chain.from_iterable(groups))


def _check(good: bool, path: str, value: object, why: str) -> Iterator[Cause]:
    if not good:
        yield invalid(path, Literal(str(value)) if isinstance(value, Duration) else value, why)


def _masquerade_bits(config: KubeProxyConfiguration) -> Iterator[Cause]:
    sections = {"KubeProxyIPTablesConfiguration": config.iptables.masquerade_bit}
    if config.mode == ProxyMode.NFTABLES:
        sections["KubeProxyNFTablesConfiguration"] = config.nftables.masquerade_bit
    for name, bit in sections.items():
        yield from _check(bit is None or 0 <= bit <= 31, child(_ROOT, name, "MasqueradeBit"), bit, _BIT_RANGE)
    layout = config.nftables.layout
    if layout and layout not in tuple(NftablesLayout):
        yield not_supported(child(_ROOT, "KubeProxyNFTablesConfiguration", "Layout"), layout, NftablesLayout)


def _ipvs(config: KubeProxyIPVSConfiguration, path: str) -> Iterator[Cause]:
    for name, timeout in (
        ("TCPTimeout", config.tcp_timeout),
        ("TCPFinTimeout", config.tcp_fin_timeout),
        ("UDPTimeout", config.udp_timeout),
    ):
        yield from _check(timeout >= ZERO, child(path, name), timeout, _NOT_NEGATIVE)
    yield from _cidrs(config.exclude_cidrs or (), child(path, "ExcludeCidrs"), "must be a valid CIDR")


def _cidrs(texts: Sequence[str], path: str, why: str) -> Iterator[Cause]:
    for at, text in enumerate(texts):
        yield from _check(parse_cidr(text) is not None, index(path, at), text, why)


def _linux(config: KubeProxyConfiguration) -> Iterator[Cause]:
    path = child(_ROOT, "KubeProxyLinuxConfiguration")
    yield from _conntrack(config.conntrack, child(path, "KubeProxyConntrackConfiguration"))
    score = config.oom_score_adj
    yield from _check(
        score is None or -1000 <= score <= 1000,
        child(path, "OOMScoreAdj"),
        score,
        "must be within the range [-1000, 1000]",
    )


def _conntrack(config: KubeProxyConntrackConfiguration, path: str) -> Iterator[Cause]:
    for name, value in (
        ("MaxPerCore", config.max_per_core),
        ("Min", config.min),
    ):
        yield from _check(value is None or value >= 0, child(path, name), value, _NOT_NEGATIVE)
    for name, timeout in (
        ("TCPEstablishedTimeout", config.tcp_established_timeout),
        ("TCPCloseWaitTimeout", config.tcp_close_wait_timeout),
        ("UDPTimeout", config.udp_timeout),
        ("UDPStreamTimeout", config.udp_stream_timeout),
    ):
        good = timeout is None or timeout >= ZERO
        yield from _check(good, child(path, name), timeout, _NOT_NEGATIVE)


def _modes(config: KubeProxyConfiguration) -> Iterator[Cause]:
    known = config.mode in ("", *ProxyMode)
    yield from _check(known, child(_ROOT, "Mode", "ProxyMode"), config.mode, _MODES)
    burst = config.client_connection.burst
    yield from _check(burst >= 0, child(_ROOT, "ClientConnection", "Burst"), burst, _NOT_NEGATIVE)


def _periods(config: KubeProxyConfiguration) -> Iterator[Cause]:
    period, least = config.sync_section.sync_period, config.sync_section.min_sync_period
    path = child(_ROOT, "SyncPeriod")
    refresh = config.config_sync_period
    yield from _check(refresh > ZERO, child(_ROOT, "ConfigSyncPeriod"), refresh, _POSITIVE)
    yield from _check(period > ZERO, path, period, _POSITIVE)
    yield from _check(least >= ZERO, child(_ROOT, "MinSyncPeriod"), least, _NOT_NEGATIVE)
    # The value shown is the other one's, as upstream shows it.
    yield from _check(
        least <= period, path, least, f"must be greater than or equal to {child(_ROOT, 'MinSyncPeriod')}"
    )


def _binding(config: KubeProxyConfiguration) -> Iterator[Cause]:
    bind = config.bind_address
    yield from _check(
        parse_ip(bind) is not None,
        child(_ROOT, "BindAddress"),
        bind,
        "not a valid textual representation of an IP address",
    )
    if config.healthz_bind_address:
        yield from host_port(config.healthz_bind_address, child(_ROOT, "HealthzBindAddress"))
    if config.metrics_bind_address:
        yield from host_port(config.metrics_bind_address, child(_ROOT, "MetricsBindAddress"))


def host_port(text: str, path: str) -> Iterator[Cause]:
    """What is wrong with an address to listen at."""
    parts = split_host_port(text)
    if parts is None:
        yield invalid(path, text, "must be IP:port")
        return
    host, port = parts
    number = atoi(port)
    yield from _check(parse_ip(host) is not None, path, host, "must be a valid IP")
    yield from _check(number is not None and 1 <= number <= 65535, path, port, "must be a valid port")


def _port_range(text: str) -> Iterator[Cause]:
    yield from _check(
        _is_port_range(text), child(_ROOT, "PortRange"), text, "must be a valid port range (e.g. 300-2000)"
    )


def _is_port_range(text: str) -> bool:
    """`300-2000`, `300+100`, `300`, or nothing."""
    text = text.strip()
    if not text:
        return True
    first, mark, last = text.partition("-" if "-" in text else "+")
    low, number = atoi(first), atoi(last) if mark else atoi(first)
    if low is None or number is None:
        return False
    high = low + number if mark == "+" else number
    return low <= high <= 65535


def node_port_addresses(texts: Sequence[str], path: str) -> Iterator[Cause]:
    """What is wrong with where NodePorts shall answer."""
    for at, text in enumerate(texts):
        if text == PRIMARY:
            yield from _check(len(texts) == 1, index(path, at), text, "can't use both 'primary' and CIDRs")
            return
        yield from _check(parse_cidr(text) is not None, index(path, at), text, "must be a valid CIDR")


def _hidden_metrics(version: str) -> Iterator[Cause]:
    good = not version or re.fullmatch(r"\d+\.\d+", version) is not None
    path = child(_ROOT, "ShowHiddenMetricsForVersion")
    yield from _check(good, path, version, "must be omitted or have the form <major>.<minor>")


def _detect_local(config: KubeProxyConfiguration) -> Iterator[Cause]:
    mode, path = config.detect_local_mode, child(_ROOT, "DetectLocalConfiguration")
    if mode not in _LOCAL_MODES:
        yield not_supported(child(_ROOT, "DetectLocalMode"), mode, _LOCAL_MODES)
    empty = "must not be empty"
    match mode:
        case DetectLocalMode.BRIDGE_INTERFACE:
            name = config.detect_local.bridge_interface
            yield from _check(bool(name), child(path, "InterfaceName"), name, empty)
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            name = config.detect_local.interface_name_prefix
            yield from _check(bool(name), child(path, "InterfacePrefix"), name, empty)
        case DetectLocalMode.CLUSTER_CIDR:
            yield from _cluster_cidrs(config.cluster_cidrs, child(path, "ClusterCIDRs"))


def _cluster_cidrs(texts: Sequence[str], path: str) -> Iterator[Cause]:
    if len(texts) > 2:
        yield invalid(path, list(texts), _PAIR)
        return
    faults = list(_cidrs(texts, path, _ONE))
    yield from faults
    if len(texts) == 2 and not faults:
        yield from _check(are_dual_stack(texts), path, list(texts), _PAIR)


def _logging(config: LoggingConfiguration, path: str) -> Iterator[Cause]:
    form = config.format
    yield from _check(form in _FORMATS, child(path, "format"), form, "Unsupported log format")
    if form == "json" and config.vmodule:
        yield invalid(child(path, "format"), "json", "Only supported for text log format")
    limit = f"Must be <= {_MAXIMUM_VERBOSITY}"
    yield from _check(
        0 <= config.verbosity <= _MAXIMUM_VERBOSITY, child(path, "verbosity"), config.verbosity, limit
    )
    for at, item in enumerate(config.vmodule):
        where = child(index(child(path, "vmodule"), at), "filePattern")
        if not item.file_pattern:
            yield Cause("FieldValueRequired", "Required value: File pattern must not be empty", where)
        else:
            why = "File pattern must not contain equal sign or comma"
            pattern = item.file_pattern
            yield from _check(not any(mark in pattern for mark in "=,"), where, pattern, why)
