"""kube-proxy's flags: names, kinds, help, and the field of the configuration each one sets.

Read by the command line, which must be quick: imports nothing. `flags` reads the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a flag takes; the values are what --help shows in place of one."""

    TEXT = "string"
    TEXTS = "strings"
    BOOL = "[=true|false]"
    NUMBER = "int32"
    FLOAT = "float32"
    DURATION = "duration"
    ADDRESS = "IP"
    ADDRESS_PORT = "IP[:PORT]"
    GATES = "KEY=true|false,..."
    PATTERNS = "PATTERN=N,..."


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag `--name`. `field` is the place of its value in the configuration ("" = not part of it, or it depends on
    the mode), `choices` what is offered for completion.
    """

    name: str
    kind: Kind
    help: str
    field: str = ""
    short: str = ""
    choices: tuple[str, ...] = ()


_FILE_WINS = "Ignored with --config."
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh")

FLAGS: tuple[Flag, ...] = (
    Flag("config", Kind.TEXT, "A file with a KubeProxyConfiguration. It then counts instead of most flags."),
    Flag("write-config-to", Kind.TEXT, "Write the configuration to this file and exit."),
    Flag("cleanup", Kind.BOOL, "Remove the rules of all proxy modes and exit."),
    Flag("init-only", Kind.BOOL, "Do what needs full root privileges, and exit; CAP_NET_ADMIN is enough afterwards."),
    Flag("netns", Kind.TEXT, "Work in this named network namespace instead of the one the command runs in."),
    Flag("kubeconfig", Kind.TEXT, "How to reach the API server.", "client_connection.kubeconfig"),
    Flag("master", Kind.TEXT, "Address of the API server, instead of the kubeconfig's."),
    Flag("hostname-override", Kind.TEXT, "Name of this machine's Node; default is the host name in lower case."),
    Flag("proxy-mode", Kind.TEXT, f"iptables (default), nftables, ipvs or userspace. {_FILE_WINS}", "mode",
         choices=("iptables", "nftables", "ipvs", "userspace")),
    Flag("nftables-layout", Kind.TEXT, f"kube-proxy (default) or compact. {_FILE_WINS}", "nftables.layout",
         choices=("kube-proxy", "compact")),
    Flag("cluster-cidr", Kind.TEXT, f"Addresses of all pods, one range for each family. {_FILE_WINS}", "cluster_cidr"),
    Flag("detect-local-mode", Kind.TEXT, f"How pods of this node are told from others. {_FILE_WINS}",
         "detect_local_mode", choices=("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")),
    Flag("pod-bridge-interface", Kind.TEXT, "With BridgeInterface: the bridge of local pods.",
         "detect_local.bridge_interface"),
    Flag("pod-interface-name-prefix", Kind.TEXT, "With InterfaceNamePrefix: how links of local pods begin.",
         "detect_local.interface_name_prefix"),
    Flag("nodeport-addresses", Kind.TEXTS, f"Ranges where NodePorts answer, or `primary`. {_FILE_WINS}",
         "node_port_addresses", choices=("primary",)),
    Flag("masquerade-all", Kind.BOOL, "Rewrite the source of everything that is sent to a cluster IP."),
    Flag("bind-address", Kind.ADDRESS, f"Primary address of the node; nothing is bound to it. {_FILE_WINS}",
         "bind_address"),
    Flag("healthz-bind-address", Kind.ADDRESS_PORT, f"Where /healthz and /livez answer. {_FILE_WINS}",
         "healthz_bind_address"),
    Flag("metrics-bind-address", Kind.ADDRESS_PORT, f"Where /metrics answers; empty: nowhere. {_FILE_WINS}",
         "metrics_bind_address"),
    Flag("healthz-port", Kind.NUMBER, "Deprecated: port of --healthz-bind-address, 0 for none."),
    Flag("metrics-port", Kind.NUMBER, "Deprecated: port of --metrics-bind-address, 0 for none."),
    Flag("bind-address-hard-fail", Kind.BOOL, "End when an address cannot be listened at.", "bind_address_hard_fail"),
    Flag("profiling", Kind.BOOL, f"Serve /debug/pprof with the metrics. {_FILE_WINS}", "enable_profiling"),
    Flag("show-hidden-metrics-for-version", Kind.TEXT, f"Show metrics hidden since this version. {_FILE_WINS}",
         "show_hidden_metrics_for_version"),
    Flag("iptables-masquerade-bit", Kind.NUMBER, "Bit of the packet mark that asks for a new source, 0 to 31.",
         "iptables.masquerade_bit"),
    Flag("iptables-localhost-nodeports", Kind.BOOL, "Let NodePorts answer on IPv4 loopback (iptables mode only).",
         "iptables.localhost_node_ports"),
    Flag("iptables-sync-period", Kind.DURATION, "How often rules are looked after (all modes but ipvs)."),
    Flag("iptables-min-sync-period", Kind.DURATION, "Least time between two changes of rules (all modes but ipvs)."),
    Flag("ipvs-sync-period", Kind.DURATION, "How often virtual servers are looked after."),
    Flag("ipvs-min-sync-period", Kind.DURATION, "Least time between two changes of virtual servers."),
    Flag("ipvs-scheduler", Kind.TEXT, f"How a server is chosen: {', '.join(SCHEDULERS)}.",
         "ipvs.scheduler", choices=SCHEDULERS),
    Flag("ipvs-exclude-cidrs", Kind.TEXTS, "Ranges whose virtual servers are left alone.", "ipvs.exclude_cidrs"),
    Flag("ipvs-strict-arp", Kind.BOOL, "Set arp_ignore=1 and arp_announce=2.", "ipvs.strict_arp"),
    Flag("ipvs-tcp-timeout", Kind.DURATION, "When idle TCP connections are forgotten, 0: as it is.",
         "ipvs.tcp_timeout"),
    Flag("ipvs-tcpfin-timeout", Kind.DURATION, "The same after a FIN, 0: as it is.", "ipvs.tcp_fin_timeout"),
    Flag("ipvs-udp-timeout", Kind.DURATION, "The same for UDP, 0: as it is.", "ipvs.udp_timeout"),
    Flag("conntrack-max-per-core", Kind.NUMBER, "Tracked connections for each core, 0: as it is.",
         "conntrack.max_per_core"),
    Flag("conntrack-min", Kind.NUMBER, "Tracked connections at least.", "conntrack.min"),
    Flag("conntrack-tcp-timeout-established", Kind.DURATION, "When idle TCP connections are forgotten, 0: as it is.",
         "conntrack.tcp_established_timeout"),
    Flag("conntrack-tcp-timeout-close-wait", Kind.DURATION, "The same in CLOSE_WAIT.",
         "conntrack.tcp_close_wait_timeout"),
    Flag("conntrack-tcp-be-liberal", Kind.BOOL, "Track TCP packets outside of the window too.",
         "conntrack.tcp_be_liberal"),
    Flag("conntrack-udp-timeout", Kind.DURATION, "When UDP without an answer is forgotten, 0: as it is.",
         "conntrack.udp_timeout"),
    Flag("conntrack-udp-timeout-stream", Kind.DURATION, "When answered UDP is forgotten, 0: as it is.",
         "conntrack.udp_stream_timeout"),
    Flag("oom-score-adj", Kind.NUMBER, f"oom_score_adj of the process, -1000 to 1000. {_FILE_WINS}", "oom_score_adj"),
    Flag("config-sync-period", Kind.DURATION, "How often everything is read anew from the API; watches make it moot.",
         "config_sync_period"),
    Flag("feature-gates", Kind.GATES, f"Gates of kube-proxy; none changes anything here. {_FILE_WINS}",
         "feature_gates"),
    Flag("kube-api-content-type", Kind.TEXT, "Taken in and not used.", "client_connection.content_type"),
    Flag("kube-api-qps", Kind.FLOAT, "Taken in and not used.", "client_connection.qps"),
    Flag("kube-api-burst", Kind.NUMBER, "Taken in and not used.", "client_connection.burst"),
    Flag("logging-format", Kind.TEXT, "text or json.", "logging.format", choices=("text", "json")),
    Flag("log-flush-frequency", Kind.DURATION, "Taken in and not used.", "logging.flush_frequency"),
    Flag("v", Kind.NUMBER, "How much is logged; from 4 on, debugging lines.", "logging.verbosity", "v"),
    Flag("vmodule", Kind.PATTERNS, "Taken in and not used.", "logging.vmodule"),
    Flag("version", Kind.BOOL, "Print the version and exit."),
)  # fmt: skip
"""In the order of --help."""
