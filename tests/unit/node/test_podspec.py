"""Environment, /etc files, volumes and the container's config."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netkit.kernel.container_capabilities import ALL, DEFAULT, NAMES, bounding_set, to_drop
from netkit.node.images.resolve import Runnable
from netkit.node.podspec.container_config import PodFiles, build
from netkit.node.podspec.environment import PodPlace, environment, expand
from netkit.node.podspec.network_files import ClusterDns, hostname, hosts, resolv_conf
from netkit.node.podspec.references import (
    ConfigError,
    Reference,
    Sources,
    TokenWish,
    environment_references,
    volume_references,
)
from netkit.node.podspec.volumes import MountError, prepare

PLACE = PodPlace("node-1", "172.18.0.2", ("10.244.1.5",), "web", {"cpu": "4", "memory": "8Gi"})
SEARCH = "search shop.svc.cluster.local svc.cluster.local cluster.local home"
DNS = ClusterDns("10.96.0.10", "cluster.local", "nameserver 1.1.1.1\nsearch home\noptions timeout:2\n")
SERVICES = [
    {"metadata": {"name": "kubernetes", "namespace": "default"},
     "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
    {"metadata": {"name": "my-db", "namespace": "shop"},
     "spec": {"clusterIP": "10.96.7.7", "ports": [{"port": 5432, "protocol": "TCP"}]}},
    {"metadata": {"name": "headless", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
    {"metadata": {"name": "other", "namespace": "else"}, "spec": {"clusterIP": "10.96.8.8", "ports": [{"port": 1}]}},
]  # fmt: skip


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app"}], "serviceAccountName": "default", **spec},
    }  # fmt: skip


def sources(**objects: dict[str, Any] | None) -> Sources:
    result = Sources("shop")
    for name, found in objects.items():
        kind, _, plain = name.partition("_")
        result.objects[Reference(kind, plain)] = found
    return result


def env(container: dict[str, Any], known: Sources | None = None, **spec: Any) -> dict[str, str]:
    return environment(pod(**spec), container, PLACE, known or Sources("shop"), SERVICES, {"IMAGE": "1"})


def test_service_links() -> None:
    found = env({})
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["KUBERNETES_PORT_443_TCP_ADDR"] == "10.96.0.1"
    assert found["MY_DB_PORT"] == "tcp://10.96.7.7:5432"
    assert found["MY_DB_PORT_5432_TCP_PROTO"] == "tcp"
    assert not any(name.startswith(("HEADLESS", "OTHER")) for name in found)
    without = env({}, enableServiceLinks=False)
    assert "MY_DB_PORT" not in without
    assert "KUBERNETES_SERVICE_HOST" in without
    assert (found["HOSTNAME"], found["IMAGE"]) == ("web", "1")


def test_references_and_expansion() -> None:
    known = sources(
        configmap_conf={"data": {"a": "1", "bad key": "x"}, "binaryData": {"blob": "AAEC"}},
        secret_sec={"data": {"p": base64.b64encode(b"pw").decode()}},
    )
    container = {
        "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "C_"}],
        "env": [
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "p"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {
                "name": "MIB",
                "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}},
            },
            {"name": "ALL", "value": "$(P) $(C_a) $(NOPE) $$(P) $(KUBERNETES_SERVICE_HOST)"},
            {"name": "LATER", "value": "$(ALL)"},
        ],
        "resources": {"requests": {"memory": "100M"}},
        "name": "app",
    }
    assert environment_references(container) == {Reference("configmap", "conf"), Reference("secret", "sec")}
    found = env(container, known)
    assert found["ALL"] == "pw 1 $(NOPE) $(P) 10.96.0.1"
    assert found["LATER"] == found["ALL"]
    assert (found["LABEL"], found["CPU"], found["MIB"]) == ("web", "4", "96")
    assert "C_bad key" not in found
    assert "C_blob" not in found


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ({"configMapKeyRef": {"name": "gone", "key": "a"}}, 'configmap "gone" not found'),
        ({"secretKeyRef": {"name": "gone", "key": "a"}}, 'secret "gone" not found'),
        ({"configMapKeyRef": {"name": "conf", "key": "zz"}}, "couldn't find key zz in ConfigMap shop/conf"),
        ({"fieldRef": {"fieldPath": "status.nope"}}, "unsupported fieldPath"),
    ],
)
def test_what_is_missing_is_said_in_kubelets_words(origin: dict[str, Any], text: str) -> None:
    known = sources(configmap_conf={"data": {"a": "1"}}, configmap_gone=None, secret_gone=None)
    with pytest.raises(ConfigError, match=text):
        env({"env": [{"name": "X", "valueFrom": origin}]}, known)


def test_optional_references_may_miss() -> None:
    origin = {"configMapKeyRef": {"name": "gone", "key": "a", "optional": True}}
    assert "X" not in env({"env": [{"name": "X", "valueFrom": origin}]}, sources(configmap_gone=None))


@given(st.text(alphabet="$)AB x", max_size=30))
def test_expansion_without_references_only_halves_dollars(text: str) -> None:
    assert expand(text, {}) == text.replace("$$", "$")


@pytest.mark.parametrize("text", ["$(A)", "$($$)", "$(A", "x$(A B)y"])
def test_a_reference_to_nothing_stays_as_it_is(text: str) -> None:
    """Also one with dollars inside, as kubelet's own expansion leaves it."""
    assert expand(text, {}) == text


def test_hostname() -> None:
    assert hostname(pod(), "node-1") == "web"
    assert hostname(pod(hostname="other"), "node-1") == "other"
    assert hostname(pod(hostNetwork=True), "node-1") == "node-1"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({}, f"{SEARCH}\nnameserver 10.96.0.10\noptions ndots:5\n"),
        ({"dnsPolicy": "Default"}, "search home\nnameserver 1.1.1.1\noptions timeout:2\n"),
        ({"hostNetwork": True}, "search home\nnameserver 1.1.1.1\noptions timeout:2\n"),
        (
            {"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["9.9.9.9"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}]}},
            "search a\nnameserver 9.9.9.9\noptions ndots:2\n",
        ),
        (
            {"dnsConfig": {"options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}},
            f"{SEARCH}\nnameserver 10.96.0.10\noptions ndots:1 edns0\n",
        ),
    ],
)  # fmt: skip
def test_resolv_conf(spec: dict[str, Any], text: str) -> None:
    assert resolv_conf(pod(**spec), DNS) == text


def test_hosts() -> None:
    aliases = [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]
    text = hosts(pod(subdomain="sub", hostAliases=aliases), ["10.244.1.5"], "web", "cluster.local")
    assert "127.0.0.1\tlocalhost\n" in text
    assert "10.244.1.5\tweb.sub.shop.svc.cluster.local\tweb\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    assert "10.244.1.5" not in hosts(pod(hostNetwork=True), ["10.244.1.5"], "node-1", "cluster.local")


def volumes(*wanted: dict[str, Any]) -> dict[str, Any]:
    return pod(volumes=list(wanted))


def test_config_map_volume_switches_as_a_whole(tmp_path: Path) -> None:
    spec = volumes({"name": "v", "configMap": {"name": "conf"}})
    assert volume_references(spec["spec"]["volumes"][0]) == {Reference("configmap", "conf")}
    path = Path(
        prepare(spec, tmp_path, PLACE, sources(configmap_conf={"data": {"a": "1", "b": "2"}}), {})["v"]
    )
    assert (path / "a").read_text() == "1"
    first = (path / "..data").readlink()
    prepare(spec, tmp_path, PLACE, sources(configmap_conf={"data": {"a": "1", "b": "2"}}), {})
    assert (path / "..data").readlink() == first
    prepare(spec, tmp_path, PLACE, sources(configmap_conf={"data": {"a": "9"}}), {})
    assert (path / "a").read_text() == "9"
    assert not (path / "b").exists()
    assert len([entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink()]) == 1


def test_secret_items_modes_and_projected(tmp_path: Path) -> None:
    known = sources(
        secret_sec={"data": {"p": base64.b64encode(b"pw").decode()}}, configmap_ca={"data": {"ca.crt": "CA"}}
    )
    spec = volumes(
        {"name": "s", "secret": {"secretName": "sec", "items": [{"key": "p", "path": "deep/pw", "mode": 0o400}]}},
        {"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "ca"}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}},
    )  # fmt: skip
    paths = prepare(spec, tmp_path, PLACE, known, {TokenWish("", 3600): "tok"})
    secret = Path(paths["s"]) / "deep" / "pw"
    assert (secret.read_bytes(), secret.stat().st_mode & 0o777) == (b"pw", 0o400)
    token = Path(paths["t"])
    assert [(token / name).read_text() for name in ("token", "ca.crt", "ns")] == ["tok", "CA", "shop"]


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ({"configMap": {"name": "gone"}}, 'for volume "v" : configmap "gone" not found'),
        (
            {"hostPath": {"path": "/no/such", "type": "Directory"}},
            "hostPath type check failed: /no/such is not a directory",
        ),
        ({"persistentVolumeClaim": {"claimName": "x"}}, "persistentVolumeClaim volumes are not supported"),
        ({"configMap": {"name": "conf", "items": [{"key": "a", "path": "../x"}]}}, "invalid path"),
    ],
)
def test_volumes_that_cannot_be(tmp_path: Path, volume: dict[str, Any], text: str) -> None:
    known = sources(configmap_gone=None, configmap_conf={"data": {"a": "1"}})
    with pytest.raises(MountError, match=text):
        prepare(volumes({"name": "v", **volume}), tmp_path, PLACE, known, {})


def config(container: dict[str, Any], files: PodFiles | None = None, **spec: Any) -> Any:
    return build(
        pod(**spec), {"name": "app", **container}, Runnable(argv=("run", "$(A)")), container_id="id", attempt=1,
        network="ns", place=PLACE, env={"A": "x"}, files=files or PodFiles({}, {}), log_path="/l",
    )  # fmt: skip


def test_config_expands_arguments_and_orders_mounts() -> None:
    files = PodFiles({"v": "/vol"}, {"/etc/hosts": "/h", "/etc/hostname": "/n"})
    mounts = [
        {"name": "v", "mountPath": "/data/deep", "subPath": "a/b", "readOnly": True},
        {"name": "v", "mountPath": "/data/"},
        {"name": "v", "mountPath": "/etc/hosts"},
    ]
    found = config({"volumeMounts": mounts}, files)
    assert found.argv == ("run", "x")
    assert [(bind.source, bind.target, bind.read_only) for bind in found.binds] == [
        ("/n", "/etc/hostname", False), ("/vol", "/data", False), ("/vol/a/b", "/data/deep", True),
        ("/vol", "/etc/hosts", False),
    ]  # fmt: skip


def test_security_context() -> None:
    own = {"runAsUser": 1000, "capabilities": {"add": ["NET_ADMIN"], "drop": ["CAP_NET_RAW"]}}
    security = config({"securityContext": own}, securityContext={"runAsGroup": 5, "fsGroup": 7}).security
    assert (security.uid, security.gid, security.groups) == (1000, 5, (7,))
    assert "NET_ADMIN" in security.capabilities
    assert "NET_RAW" not in security.capabilities
    with pytest.raises(ConfigError, match="runAsNonRoot and image will run as root"):
        config({"securityContext": {"runAsNonRoot": True}})
    with pytest.raises(ConfigError, match="must not leave the volume"):
        config(
            {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]}, PodFiles({"v": "/v"}, {})
        )


def test_capability_sets() -> None:
    assert bounding_set() == DEFAULT
    assert bounding_set(drop=["all"]) == frozenset()
    assert bounding_set(["NET_BIND_SERVICE"], ["ALL"]) == {"NET_BIND_SERVICE"}
    assert bounding_set(["ALL"], ["SYS_ADMIN"]) == ALL - {"SYS_ADMIN"}
    assert bounding_set(privileged=True) == ALL
    assert NAMES.index("NET_ADMIN") == 12
    assert NAMES.index("SYS_ADMIN") == 21
    assert to_drop(frozenset(NAMES) - {"NET_ADMIN"}, 41) == (12, 41)
