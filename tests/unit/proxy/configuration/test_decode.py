"""Files read as kube-proxy reads them. Cases of upstream's TestLoadConfig are among them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from netkit.proxy.configuration.decode import ConfigurationError, decode
from netkit.proxy.configuration.defaults import for_linux, with_defaults
from netkit.proxy.configuration.document import (
    ClientConnectionConfiguration,
    DetectLocalConfiguration,
    KubeProxyConfiguration,
    KubeProxyConntrackConfiguration,
    KubeProxyIPTablesConfiguration,
    KubeProxyIPVSConfiguration,
    KubeProxyNFTablesConfiguration,
    VModuleItem,
)
from netkit.proxy.configuration.durations import Duration
from netkit.proxy.configuration.encode import encode

HEADER = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
WHOLE = (
    HEADER
    + """bindAddress: BIND
clientConnection:
  acceptContentTypes: "abc"
  burst: 100
  contentType: content-type
  kubeconfig: "/path/to/kubeconfig"
  qps: 7
clusterCIDR: "1.2.3.0/24"
configSyncPeriod: 15s
conntrack:
  maxPerCore: 2
  min: 1
  tcpCloseWaitTimeout: 10s
  tcpEstablishedTimeout: 20s
healthzBindAddress: "1.2.3.4:12345"
hostnameOverride: "foo"
iptables:
  masqueradeAll: true
  masqueradeBit: 17
  minSyncPeriod: 10s
  syncPeriod: 60s
  localhostNodePorts: true
ipvs:
  minSyncPeriod: 10s
  syncPeriod: 60s
  excludeCIDRs:
    - "10.20.30.40/16"
    - "fd00:1::0/64"
nftables:
  masqueradeAll: true
  masqueradeBit: 18
  minSyncPeriod: 10s
  syncPeriod: 60s
metricsBindAddress: "2.3.4.5:23456"
mode: "iptables"
oomScoreAdj: 17
portRange: "2-7"
detectLocalMode: "ClusterCIDR"
detectLocal:
  bridgeInterface: "cbr0"
  interfaceNamePrefix: "veth"
nodePortAddresses:
  - "10.20.30.40/16"
  - "fd00:1::0/64"
"""
)
MINUTE, TEN = Duration.of(60), Duration.of(10)
READ = with_defaults(KubeProxyConfiguration(
    bind_address="9.8.7.6",
    client_connection=ClientConnectionConfiguration("/path/to/kubeconfig", "abc", "content-type", 7.0, 100),
    cluster_cidr="1.2.3.0/24",
    config_sync_period=Duration.of(15),
    conntrack=KubeProxyConntrackConfiguration(2, 1, Duration.of(20), TEN),
    healthz_bind_address="1.2.3.4:12345",
    hostname_override="foo",
    iptables=KubeProxyIPTablesConfiguration(17, True, True, MINUTE, TEN),
    ipvs=KubeProxyIPVSConfiguration(MINUTE, TEN, exclude_cidrs=("10.20.30.40/16", "fd00:1::0/64")),
    nftables=KubeProxyNFTablesConfiguration(18, True, MINUTE, TEN),
    metrics_bind_address="2.3.4.5:23456",
    mode="iptables",
    oom_score_adj=17,
    port_range="2-7",
    detect_local_mode="ClusterCIDR",
    detect_local=DetectLocalConfiguration("cbr0", "veth"),
    node_port_addresses=("10.20.30.40/16", "fd00:1::0/64"),
))  # fmt: skip


def read(text: str) -> KubeProxyConfiguration:
    return with_defaults(decode(text.encode()).configuration)


@pytest.mark.parametrize(
    ("written", "address"),
    [("0.0.0.0", "0.0.0.0"), ("9.8.7.6", "9.8.7.6"), ('"::"', "::"), ('"[::]"', "[::]"), ("::0", "::0")],
)
def test_a_whole_file(written: str, address: str) -> None:
    assert read(WHOLE.replace("BIND", written)) == replace(READ, bind_address=address)


def test_unknown_and_repeated_fields_are_warned_of_and_read_leniently() -> None:
    decoded = decode((WHOLE.replace("BIND", "9.8.7.6") + "foo: bar\nbindAddress: 9.8.7.6\n").encode())
    assert with_defaults(decoded.configuration) == READ
    assert decoded.warning == (
        'strict decoding error: yaml: unmarshal errors:\n  line 48: key "bindAddress" already set in map, '
        'unknown field "foo"'
    )
    nested = decode((HEADER + "iptables: {masqueradeBits: 1}\nipvs: {a: 1, b: {c: 2}}\n").encode())
    assert nested.warning == (
        'strict decoding error: unknown field "iptables.masqueradeBits", unknown field "ipvs.a", unknown field "ipvs.b"'
    )


def test_json_is_read_too() -> None:
    text = b'{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "ipvs"}'
    assert decode(text).configuration.mode == "ipvs"


def test_the_empty_configuration_has_upstreams_defaults() -> None:
    config = read(HEADER)
    assert (
        encode(config)
        == """apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 10
  contentType: application/vnd.kubernetes.protobuf
  kubeconfig: ""
  qps: 5
clusterCIDR: ""
configSyncPeriod: 15m0s
conntrack:
  maxPerCore: 32768
  min: 131072
  tcpBeLiberal: false
  tcpCloseWaitTimeout: 1h0m0s
  tcpEstablishedTimeout: 24h0m0s
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables:
  localhostNodePorts: true
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 1s
  syncPeriod: 30s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 5s
  format: text
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: 127.0.0.1:10249
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: 14
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: -999
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""
    )
    assert read(encode(config)) == config


def test_defaults_follow_the_family_and_leave_zeros_that_were_given() -> None:
    config = read(
        HEADER
        + "bindAddress: 'fd00::1'\nconntrack: {maxPerCore: 0, tcpCloseWaitTimeout: 0s}\noomScoreAdj: 0\n"
        "iptables: {masqueradeBit: 0, localhostNodePorts: false, syncPeriod: 0s}\n"
    )
    assert (config.healthz_bind_address, config.metrics_bind_address) == ("[::]:10256", "[::1]:10249")
    assert (config.conntrack.max_per_core, config.conntrack.tcp_close_wait_timeout) == (0, Duration())
    assert (config.iptables.masquerade_bit, config.iptables.localhost_node_ports) == (0, False)
    assert config.iptables.sync_period == Duration.of(30)
    assert config.oom_score_adj == 0


@pytest.mark.parametrize(
    ("given", "address"),
    [("1.2.3.4", "1.2.3.4:10256"), ("fd00::5", "[fd00::5]:10256"), ("1.2.3.4:5", "1.2.3.4:5"), ("x", "x")],
)
def test_a_port_is_added_to_an_address_without(given: str, address: str) -> None:
    assert read(HEADER + f'healthzBindAddress: "{given}"').healthz_bind_address == address


def test_what_linux_decides() -> None:
    assert for_linux(read(HEADER)).mode == "iptables"
    assert for_linux(read(HEADER)).detect_local_mode == "ClusterCIDR"
    assert for_linux(read(HEADER)).node_port_addresses is None
    assert for_linux(read(HEADER + "mode: nftables")).node_port_addresses == ("primary",)
    own = read(HEADER + "mode: nftables\nnodePortAddresses: [10.0.0.0/8]")
    assert for_linux(own).node_port_addresses == ("10.0.0.0/8",)


def test_logging() -> None:
    config = read(HEADER + "logging: {format: json, flushFrequency: 1000000000, verbosity: 10,"
                  " vmodule: [{filePattern: foo.go, verbosity: 6}]}").logging  # fmt: skip
    assert (config.format, config.flush_frequency, config.verbosity) == ("json", Duration.of(1), 10)
    assert config.vmodule == (VModuleItem("foo.go", 6),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Twas bryllyg, and ye slythy toves", "could not find expected ':'"),
        ("kind: KubeSchedulerConfiguration", 'no kind "KubeSchedulerConfiguration" is registered for version '
         '"kubeproxy.config.k8s.io/v1alpha1" in scheme'),
        ("bindAddress: ::", "mapping values are not allowed in this context"),
        ("mode: iptables", "Object 'Kind' is missing in 'apiVersion: "),
        ("kind: KubeProxyConfiguration\nmode: 1", "json: cannot unmarshal number into Go struct field "
         "KubeProxyConfiguration.mode of type string"),
        ("kind: KubeProxyConfiguration\niptables: {masqueradeBit: x}", "json: cannot unmarshal string into Go struct "
         "field KubeProxyIPTablesConfiguration.iptables.masqueradeBit of type int32"),
        ("kind: KubeProxyConfiguration\niptables: []", "json: cannot unmarshal array into Go struct field "
         "KubeProxyConfiguration.iptables of type v1alpha1.KubeProxyIPTablesConfiguration"),
        ("kind: KubeProxyConfiguration\nnodePortAddresses: primary", "json: cannot unmarshal string into Go struct "
         "field KubeProxyConfiguration.nodePortAddresses of type []string"),
        ("kind: KubeProxyConfiguration\niptables: {syncPeriod: 30}", "json: cannot unmarshal number into Go value of "
         "type string"),
        ("kind: KubeProxyConfiguration\niptables: {syncPeriod: '30'}", 'time: missing unit in duration "30"'),
    ],
)  # fmt: skip
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode(f"apiVersion: kubeproxy.config.k8s.io/v1alpha1\n{text}\n".encode())
    assert caught.value.message.startswith("failed to decode: ")
    assert message in caught.value.message


def test_other_versions_and_no_version() -> None:
    with pytest.raises(ConfigurationError, match=r'for version "kubeproxy\.config\.k8s\.io/v1beta1"'):
        decode(HEADER.replace("v1alpha1", "v1beta1").encode())
    with pytest.raises(ConfigurationError, match="Object 'apiVersion' is missing"):
        decode(b"kind: KubeProxyConfiguration")
    with pytest.raises(ConfigurationError, match="cannot unmarshal null"):
        decode(b"")


def test_periods_of_other_modes_are_not_written() -> None:
    text = encode(read(HEADER + "mode: nftables\nnftables: {masqueradeAll: true, layout: compact}\n"))
    again = decode(text.encode()).configuration
    assert (again.nftables.sync_period, again.iptables.sync_period) == (Duration.of(30), Duration())
    assert (again.nftables.masquerade_all, again.iptables.masquerade_all) == (True, False)
    assert again.nftables.layout == "compact"
    assert "layout" not in encode(read(HEADER))
