"""The fields of KubeProxyConfiguration, as its file has them.

Values only: `decode` reads them, `defaults` fills them, `validation` judges them, `encode` writes them. A field's name
in the file is its name here in camel case, unless its metadata says otherwise. None is a field that was not given,
where that differs from zero.

Not upstream's: `nftables.layout`, and `userspace` as a mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from netkit.proxy.configuration.durations import ZERO, Duration
from netkit.proxy.settings import NftablesLayout, ProxyMode

API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
KIND = "KubeProxyConfiguration"
PRIMARY = "primary"
"""In nodePortAddresses: the Node's own addresses, one of each family."""


def _named(name: str, default: Any) -> Any:
    return field(default=default, metadata={"name": name})


def _omitted(default: Any = None, factory: Any = None, name: str = "") -> Any:
    """A field that is written only when it differs from its zero value."""
    metadata = {"omitempty": True, **({"name": name} if name else {})}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)


def file_name(member: Field[Any]) -> str:
    """The name of a field in the file."""
    if "name" in member.metadata:
        return str(member.metadata["name"])
    first, *others = member.name.split("_")
    return first + "".join(word.capitalize() for word in others)


@dataclass(frozen=True, slots=True)
class ClientConnectionConfiguration:
    """How the proxy talks to the API server. Content types, `qps` and `burst` are taken in and not used."""

    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 0.0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class VModuleItem:
    """A file pattern with a verbosity of its own."""

    file_pattern: str = ""
    verbosity: int = 0


@dataclass(frozen=True, slots=True)
class JSONOptions:
    """Where JSON lines go; taken in and not used."""

    split_stream: bool = _omitted(default=False)
    info_buffer_size: str = "0"


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Where text lines go; taken in and not used."""

    split_stream: bool = _omitted(default=False)
    info_buffer_size: str = "0"


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Options of each format."""

    text: TextOptions = field(default_factory=TextOptions)
    json: JSONOptions = field(default_factory=JSONOptions)


@dataclass(frozen=True, slots=True)
class LoggingConfiguration:
    """`format` is text or json; from `verbosity` 4 on, debugging lines are written."""

    format: str = ""
    flush_frequency: Duration = ZERO
    verbosity: int = 0
    vmodule: tuple[VModuleItem, ...] = _omitted(default=(), name="vmodule")
    options: FormatOptions = field(default_factory=FormatOptions)


@dataclass(frozen=True, slots=True)
class KubeProxyIPTablesConfiguration:
    """For iptables; its mark bit and masqueradeAll count in ipvs and userspace too."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    localhost_node_ports: bool | None = None
    sync_period: Duration = ZERO
    min_sync_period: Duration = ZERO


@dataclass(frozen=True, slots=True)
class KubeProxyIPVSConfiguration:
    """For ipvs. Timeouts of 0 leave the kernel's value alone."""

    sync_period: Duration = ZERO
    min_sync_period: Duration = ZERO
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] | None = _named("excludeCIDRs", None)
    strict_arp: bool = _named("strictARP", False)
    tcp_timeout: Duration = ZERO
    tcp_fin_timeout: Duration = ZERO
    udp_timeout: Duration = ZERO


@dataclass(frozen=True, slots=True)
class KubeProxyNFTablesConfiguration:
    """For nftables. `layout` is this project's: kube-proxy reads a file with it, warns, and goes on."""

    masquerade_bit: int | None = None
    masquerade_all: bool = False
    sync_period: Duration = ZERO
    min_sync_period: Duration = ZERO
    layout: str = _omitted(default="")


@dataclass(frozen=True, slots=True)
class KubeProxyConntrackConfiguration:
    """What to set connection tracking to at the start; 0 leaves the kernel's value alone."""

    max_per_core: int | None = None
    min: int | None = None
    tcp_established_timeout: Duration | None = None
    tcp_close_wait_timeout: Duration | None = None
    tcp_be_liberal: bool = False
    udp_timeout: Duration = ZERO
    udp_stream_timeout: Duration = ZERO


@dataclass(frozen=True, slots=True)
class KubeProxyWinkernelConfiguration:
    """For Windows; taken in and not used."""

    network_name: str = ""
    source_vip: str = ""
    enable_dsr: bool = _named("enableDSR", False)
    root_hns_endpoint_name: str = ""
    forward_health_check_vip: bool = False


@dataclass(frozen=True, slots=True)
class DetectLocalConfiguration:
    """What some values of detectLocalMode need."""

    bridge_interface: str = ""
    interface_name_prefix: str = ""


@dataclass(frozen=True, slots=True)
class KubeProxyConfiguration:
    """The whole file. `port_range` and `windows_run_as_service` are taken in and not used."""

    feature_gates: Mapping[str, bool] = _omitted(factory=dict)
    client_connection: ClientConnectionConfiguration = field(default_factory=ClientConnectionConfiguration)
    logging: LoggingConfiguration = field(default_factory=LoggingConfiguration)
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: KubeProxyIPTablesConfiguration = field(default_factory=KubeProxyIPTablesConfiguration)
    ipvs: KubeProxyIPVSConfiguration = field(default_factory=KubeProxyIPVSConfiguration)
    nftables: KubeProxyNFTablesConfiguration = field(default_factory=KubeProxyNFTablesConfiguration)
    winkernel: KubeProxyWinkernelConfiguration = field(default_factory=KubeProxyWinkernelConfiguration)
    detect_local_mode: str = ""
    detect_local: DetectLocalConfiguration = field(default_factory=DetectLocalConfiguration)
    cluster_cidr: str = _named("clusterCIDR", "")
    node_port_addresses: tuple[str, ...] | None = None
    oom_score_adj: int | None = None
    conntrack: KubeProxyConntrackConfiguration = field(default_factory=KubeProxyConntrackConfiguration)
    config_sync_period: Duration = ZERO
    port_range: str = ""
    windows_run_as_service: bool = _omitted(default=False)

    # What counts is in the section of the mode; upstream keeps it once, in its internal version of the type.

    @property
    def sync_section(
        self,
    ) -> KubeProxyIPTablesConfiguration | KubeProxyIPVSConfiguration | KubeProxyNFTablesConfiguration:
        """The section whose periods count."""
        match self.mode:
            case ProxyMode.IPVS:
                return self.ipvs
            case ProxyMode.NFTABLES:
                return self.nftables
        return self.iptables

    @property
    def masquerade_section(self) -> KubeProxyIPTablesConfiguration | KubeProxyNFTablesConfiguration:
        """The section whose masqueradeAll and masqueradeBit count."""
        return self.nftables if self.mode == ProxyMode.NFTABLES else self.iptables

    @property
    def cluster_cidrs(self) -> tuple[str, ...]:
        """The ranges of `clusterCIDR`."""
        return tuple(self.cluster_cidr.split(",")) if self.cluster_cidr else ()

    @property
    def layout(self) -> NftablesLayout:
        """How the nftables mode lays its table out."""
        return NftablesLayout(self.nftables.layout or NftablesLayout.KUBE_PROXY)


def members(section: object) -> Mapping[str, Field[Any]]:
    """The fields of a section (a class or one of its values) by their names in the file."""
    return {file_name(member): member for member in fields(section)}  # type: ignore[arg-type]
