"""The configuration file: what is accepted, and the one line each mistake gets."""

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from netkit.cluster.config import ClusterConfig, check, load, parse
from netkit.cluster.errors import ConfigError
from netkit.podnet.attach import Attach
from netkit.podnet.modes import NetworkMode, Setting


def test_no_file_gives_the_documented_defaults() -> None:
    config = load(None)
    assert (config.name, config.nodes, config.api_port) == ("lab", 3, 0)
    assert config.network.pod_subnet == IPv4Network("10.244.0.0/16")
    assert config.network.service_subnet == IPv4Network("10.96.0.0/12")
    assert config.network.node_ports == (30000, 32767)
    assert config.node_names() == ["node1", "node2", "node3"]


def test_every_field_is_read() -> None:
    config = parse(
        {
            "apiVersion": "kube-netkit/v1alpha1",
            "kind": "Cluster",
            "name": "blue",
            "nodes": 2,
            "api": {"port": 16443},
            "network": {
                "mode": "vxlan",
                "directRouting": True,
                "podSubnet": "10.10.0.0/16",
                "nodeMask": 25,
                "serviceSubnet": "10.20.0.0/16",
                "segment": "192.168.128.0/20",
                "mtu": 9000,
                "clusterDomain": "lab.local",
                "nodePortRange": "31000-31999",
            },
            "proxy": {
                "mode": "iptables",
                "masqueradeAll": True,
                "minSyncPeriod": "500ms",
                "syncPeriod": "1m30s",
            },
            "nodeMonitor": {
                "leaseDuration": "4s",
                "gracePeriod": "4s",
                "evictionAfter": "2s",
            },
        }
    )
    assert config.name == "blue"
    assert config.nodes == 2
    assert config.api_port == 16443
    assert config.network.direct_routing is True
    assert parse({"network": {"mode": "native"}}).network.mode is NetworkMode.NATIVE
    assert parse({"network": {"attach": "ptp"}}).network.attach is Attach.PTP
    assert config.network.attach is Attach.BRIDGE
    assert config.network.node_mask == 25
    assert config.network.segment == IPv4Network("192.168.128.0/20")
    assert config.network.mtu == 9000
    assert config.network.cluster_domain == "lab.local"
    assert config.network.node_ports == (31000, 31999)
    assert config.proxy.iptables.masquerade_all is True
    assert config.proxy.ipvs.min_sync_period.seconds == 0.5
    assert config.proxy.nftables.sync_period.seconds == 90
    assert config.node_monitor.lease_duration == 4
    assert config.node_monitor.eviction_after == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"nodez": 3}, "nodez: unknown field"),
        ({"network": {"podSubnett": "10.0.0.0/16"}}, "network.podSubnett: unknown field"),
        ({"nodes": "three"}, "nodes: expected a whole number, got text"),
        ({"nodes": True}, "nodes: expected a whole number, got a boolean"),
        ({"nodes": 0}, "nodes: 0 is not between 1 and 200"),
        ({"network": "vxlan"}, "network: expected a mapping, got text"),
        ([1], "the file: expected a mapping, got a list"),
        ({"network": {"podSubnet": "10.244.0.1/16"}}, "network.podSubnet: 10.244.0.1/16 has host bits set"),
        (
            {"network": {"mode": "geneve"}},
            "network.mode: 'geneve' is not one of vxlan, native, wireguard, external",
        ),
        ({"network": {"attach": "macvlan"}}, "network.attach: 'macvlan' is not one of bridge, ptp"),
        ({"network": {"directRouting": "yes"}}, "network.directRouting: expected true or false, got text"),
        (
            {"proxy": {"mode": "ipvs2"}},
            "proxy.mode: 'ipvs2' is not one of iptables, nftables, ipvs, userspace",
        ),
        ({"proxy": {"syncPeriod": "soon"}}, "proxy.syncPeriod: 'soon' is not a duration"),
        (
            {"network": {"nodePortRange": "32767-30000"}},
            "network.nodePortRange: '32767-30000' is not a port range",
        ),
        ({"api": {"port": 70000}}, "api.port: 70000 is not between 0 and 65535"),
        (
            {"api": {"authorizationMode": ["Rbac"]}},
            "api.authorizationMode: 'Rbac' is not one of AlwaysAllow, AlwaysDeny, ABAC, Webhook, RBAC, Node",
        ),
        ({"api": {"authorizationMode": 5}}, "api.authorizationMode: expected a list, got a number"),
        ({"api": {"abacPolicyFile": 5}}, "api.abacPolicyFile: expected a file's name, got a number"),
        ({"apiVersion": "v1"}, "apiVersion: 'v1' is not one of kube-netkit/v1alpha1"),
    ],
)
def test_a_mistake_is_named_with_its_path(document: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(document)
    assert caught.value.message == message


BRIDGE_LIST = Path(__file__).parents[3] / "labs" / "cni" / "bridge.conflist"


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory with the programs that the conflist of the labs names."""
    for name in ("bridge", "portmap", "host-local"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_plugins_of_others_are_read_with_the_configuration(plugins: Path) -> None:
    network = {"mode": "external", "cniConf": str(BRIDGE_LIST), "cniBin": str(plugins), "nodeRoutes": True}
    found = check(parse({"network": network})).network
    assert found.setting == Setting(NetworkMode.EXTERNAL, node_routes=True)
    assert found.cni is not None
    assert found.cni.conflist.types == ("bridge", "portmap")
    assert found.cni.path == (str(plugins),)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({}, "network.cniConf: is needed with mode external"),
        ({"cniConf": "/nowhere"}, "network.cniConf: /nowhere: No such file or directory"),
        ({"cniConf": "LIST", "attach": "ptp"}, "network.attach: does not go with mode external"),
        ({"cniConf": "LIST", "cniBin": "/nowhere"}, "network.cniBin: /nowhere is not a directory"),
        ({"cniConf": "LIST", "cniBin": "/"}, 'network.cniConf: failed to find plugin "bridge" in path [/]'),
        (
            {"cniConf": "LIST", "mode": "native"},
            "network.cniConf: goes with mode external, and the mode is native",
        ),
        (
            {"nodeRoutes": True, "mode": "vxlan"},
            "network.nodeRoutes: goes with mode external, and the mode is vxlan",
        ),
        (
            {"cniConf": "PLAIN"},
            "network.cniConf: PLAIN: plugins: it is the configuration of one plug-in; a list has",
        ),
        (
            {"cniConf": "FIXED", "nodeRoutes": True},
            "network.nodeRoutes: no plug-in of FIXED takes its addresses from",
        ),
    ],
)
def test_what_cannot_be_of_plugins_of_others_is_named(
    plugins: Path, network: dict[str, Any], message: str
) -> None:
    plain, fixed = plugins / "plain.conf", plugins / "fixed.conflist"
    plain.write_text('{"cniVersion": "1.0.0", "name": "x", "type": "bridge"}')
    fixed.write_text(BRIDGE_LIST.read_text().replace("usePodCidr", "10.9.0.0/24"))
    paths = {"LIST": str(BRIDGE_LIST), "PLAIN": str(plain), "FIXED": str(fixed)}
    document = {"mode": "external", "cniBin": str(plugins), **network}
    if network.get("mode"):
        del document["cniBin"]
    if network.get("cniConf") in paths:
        document["cniConf"] = paths[network["cniConf"]]
    for name, path in paths.items():
        message = message.replace(name, path)
    with pytest.raises(ConfigError) as caught:
        parse({"network": document})
    assert caught.value.message.startswith(message)


def test_authorization_becomes_settings(tmp_path: Path) -> None:
    policy = tmp_path / "abac.jsonl"
    policy.touch()
    assert load(None).authorization.modes == ("Node", "RBAC")
    document = {"api": {"authorizationMode": ["Node", "ABAC", "RBAC"], "abacPolicyFile": str(policy)}}
    config = check(parse(document)).authorization
    assert (config.modes, config.abac_policy_file) == (("Node", "ABAC", "RBAC"), policy)
    assert parse({"api": {"authorizationMode": "Node, RBAC"}}).authorization.modes == ("Node", "RBAC")


def test_a_misspelt_field_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"network": {"podSubent": "10.0.0.0/8"}})
    assert caught.value.hint == "did you mean podSubnet?"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"network": {"mode": "native", "directRouting": True}},
            "network.directRouting: goes with mode vxlan, and the mode is native",
        ),
        (
            {
                "network": {"attach": "ptp"},
                "proxy": {"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cni0"}},
            },
            "proxy.detectLocalMode: BridgeInterface needs a bridge, and with network.attach ptp there is none",
        ),
        (
            {"network": {"podSubnet": "10.96.0.0/16"}},
            "network.podSubnet 10.96.0.0/16 overlaps network.serviceSubnet 10.96.0.0/12",
        ),
        (
            {"network": {"segment": "10.244.8.0/22"}},
            "network.podSubnet 10.244.0.0/16 overlaps network.segment 10.244.8.0/22",
        ),
        ({"network": {"segment": "192.168.7.0/24"}}, "network.segment: 192.168.7.0/24 is too small"),
        (
            {"network": {"podSubnet": "10.244.0.0/24"}, "nodes": 2},
            "has room for not even one node range(s) of /24",
        ),
        ({"network": {"podSubnet": "127.0.0.0/16"}}, "network.podSubnet: 127.0.0.0/16 cannot be used"),
        ({"api": {"authorizationMode": []}}, "api.authorizationMode: at least one mode is needed"),
        ({"api": {"authorizationMode": "RBAC,RBAC"}}, "api.authorizationMode: RBAC is given twice"),
        (
            {"api": {"authorizationMode": ["ABAC", "RBAC"]}},
            "api.abacPolicyFile: is needed with authorizationMode ABAC",
        ),
        (
            {"api": {"authorizationWebhook": "/dev/null"}},
            "api.authorizationWebhook: is given, but Webhook is not in authorizationMode",
        ),
        (
            {"api": {"authorizationMode": ["Webhook"], "authorizationWebhook": "/nowhere/x"}},
            "api.authorizationWebhook: /nowhere/x is not a file",
        ),
        ({"name": "Blue"}, "'Blue' cannot be a cluster's name"),
        ({"name": "a.b"}, "'a.b' cannot be a cluster's name"),
        ({"name": "x" * 21}, "cannot be a cluster's name"),
    ],
)
def test_values_that_do_not_fit_together(document: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(parse(document))
    assert message in caught.value.message


def test_options_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("name: blue\nnodes: 2\n")
    assert load(path, name="green", nodes=5) == ClusterConfig(name="green", nodes=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"nodes: [", "not valid YAML in line 1"), (b"\xff\xfe\x00", "not a text file")],
)
def test_a_file_that_is_no_yaml(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_admission_plugins_are_named() -> None:
    api = {"disableAdmissionPlugins": "PodSecurity, ResourceQuota", "enableAdmissionPlugins": ["AlwaysDeny"]}
    config = check(parse({"api": api}))
    assert config.admission.disabled == ("PodSecurity", "ResourceQuota")
    assert config.admission.enabled == ("AlwaysDeny",)


@pytest.mark.parametrize(
    ("api", "message"),
    [
        (
            {"disableAdmissionPlugins": ["PodSafety"]},
            "api.disableAdmissionPlugins: 'PodSafety' is not one of",
        ),
        (
            {"disableAdmissionPlugins": ["AlwaysDeny"], "enableAdmissionPlugins": ["AlwaysDeny"]},
            "api.disableAdmissionPlugins: AlwaysDeny is in api.enableAdmissionPlugins too",
        ),
    ],
)
def test_admission_plugins_that_are_none(api: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        check(parse({"api": api}))


def test_limits_audit_and_pod_security_become_settings(tmp_path: Path) -> None:
    policy = tmp_path / "audit.yaml"
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n")
    document = {
        "api": {
            "requestTimeout": "30s",
            "maxRequestsInflight": 50,
            "auditPolicyFile": str(policy),
            "auditLogMaxSize": 5,
            "auditLogMaxBackup": 2,
            "eventTTL": "10m",
            "podSecurity": {
                "defaults": {"enforce": "baseline", "enforce-version": "v1.29", "warn": "restricted"},
                "exemptions": {"namespaces": ["kube-system"], "usernames": "ann", "runtimeClasses": ["kata"]},
            },
        }
    }
    config = check(parse(document)).operation
    settings = config.in_logs(tmp_path / "logs")
    assert (settings.request_timeout, settings.max_requests_inflight) == (30, 50)
    assert (settings.audit_policy_file, settings.audit_log_path) == (policy, tmp_path / "logs" / "audit.log")
    assert (settings.audit_log_max_size, settings.audit_log_max_backup) == (5, 2)
    assert config.event_ttl == 600
    security = config.pod_security
    assert [str(mode) for mode in (security.defaults.enforce, security.defaults.audit)] == [
        "baseline:v1.29",
        "privileged:latest",
    ]
    assert security.exemptions.namespaces == {"kube-system"}
    assert security.exemptions.usernames == {"ann"}
    assert load(None).operation.in_logs(tmp_path).audit_log_path is None


@pytest.mark.parametrize(
    ("api", "message"),
    [
        ({"requestTimeout": "0s"}, "api.requestTimeout: must be at least 1s"),
        ({"maxRequestsInflight": 0}, "api.maxRequestsInflight: 0 is not between 1 and 100000"),
        ({"auditLogMaxSize": 1}, "api.auditLogMaxSize: is given, but nothing is audited"),
        ({"eventTTL": "0s"}, "api.eventTTL: must be at least 1s"),
        (
            {"podSecurity": {"defaults": {"enforce": "strict"}}},
            "api.podSecurity.defaults.enforce: 'strict' is not one of privileged, baseline, restricted",
        ),
        (
            {"podSecurity": {"defaults": {"warn-version": "1.29"}}},
            "api.podSecurity.defaults.warn-version: '1.29' is neither latest nor v1.x",
        ),
        ({"podSecurity": {"default": {}}}, "api.podSecurity.default: unknown field"),
    ],
)
def test_mistakes_about_operation_are_named(api: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"api": api})
    assert caught.value.message == message


def test_an_audit_policy_is_read_before_anything_is_made(tmp_path: Path) -> None:
    policy = tmp_path / "audit.yaml"
    config = parse({"api": {"auditPolicyFile": str(policy)}})
    with pytest.raises(ConfigError, match="No such file"):
        check(config)
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Everything\n")
    with pytest.raises(ConfigError, match=r"^api\.auditPolicyFile: "):
        check(config)
