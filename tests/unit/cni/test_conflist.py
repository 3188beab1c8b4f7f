from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from netkit.cni.cache import Cache, CacheBroken, Cached
from netkit.cni.conflist import (
    BadConflist,
    capability_args,
    for_node,
    parse,
    plugin_config,
    read,
    unheeded,
    uses_pod_range,
)
from netkit.cni.request import Attachment
from netkit.podnet.pod import NO_WISHES, PodRef, PortMapping, RuntimeConfig

LABS = Path(__file__).parents[3] / "labs" / "cni" / "bridge.conflist"
WISHES = RuntimeConfig((PortMapping(8080, 80), PortMapping(53, 53, "udp", "127.0.0.1")), 1_000_000)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "not JSON: "),
        ("[]", "expected an object"),
        ({"plugins": []}, "name: "),
        ({"name": "a/b", "plugins": []}, "name: "),
        ({"name": "a", "type": "bridge"}, "plugins: it is the configuration of one plug-in"),
        ({"name": "a", "plugins": []}, "plugins: at least one is needed"),
        ({"name": "a", "plugins": [{"type": "bridge"}, {}]}, "plugins[1].type: "),
        ({"name": "a", "plugins": [{"type": "/bin/sh"}]}, "plugins[0].type: "),
        ({"name": "a", "plugins": [{"type": "x"}]}, "cniVersion: missing"),
        (
            {"name": "a", "cniVersion": "0.2.0", "plugins": [{"type": "x"}]},
            "cniVersion: 0.2.0, and what is known",
        ),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_reason(document: Any, message: str) -> None:
    with pytest.raises(BadConflist) as caught:
        parse(document if isinstance(document, str) else json.dumps(document))
    assert caught.value.message.startswith(message)


def test_the_highest_version_known_is_taken() -> None:
    text = (
        '{"name": "a", "cniVersion": "0.4.0", "cniVersions": ["1.1.0", "9.0.0"], "plugins": [{"type": "x"}]}'
    )
    assert parse(text).version == "1.1.0"
    assert parse(text).can_check
    assert not parse(text.replace('"name"', '"disableCheck": true, "name"')).can_check


def test_each_node_has_its_own_range_and_directory() -> None:
    listed = read(LABS)
    assert uses_pod_range(listed)
    bridge, portmap = for_node(listed, IPv4Network("10.244.3.0/24"), Path("/state/networks")).plugins
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert bridge["ipam"]["dataDir"] == "/state/networks"
    assert portmap == listed.plugins[1]
    own = parse(
        '{"name": "a", "cniVersion": "1.0.0", "plugins": [{"type": "netkit-cni", "ipam": {"type": "dhcp"}}]}'
    )
    (plugin,) = for_node(own, IPv4Network("10.244.3.0/24"), Path("/state/networks")).plugins
    assert plugin["dataDir"] == "/state/networks"
    assert "dataDir" not in plugin["ipam"]
    assert not uses_pod_range(own)


def test_wishes_have_the_names_of_cnis_conventions() -> None:
    assert capability_args(NO_WISHES) == {}
    assert capability_args(WISHES) == {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
        ],
        "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2147483647},
    }


def test_a_plugin_gets_what_it_heeds_and_what_came_before_it() -> None:
    listed, args = read(LABS), capability_args(WISHES)
    bridge, portmap = listed.plugins
    first = plugin_config(listed, bridge, None, args)
    assert (first["name"], first["cniVersion"]) == ("bridge", "1.0.0")
    assert "runtimeConfig" not in first
    assert "prevResult" not in first
    second = plugin_config(listed, portmap, {"ips": []}, args)
    assert second["runtimeConfig"] == {"portMappings": args["portMappings"]}
    assert second["prevResult"] == {"ips": []}
    assert "capabilities" not in second
    assert unheeded(listed, args) == ["bandwidth"]


def test_what_was_added_is_remembered_as_libcni_does(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "results")
    cached = Cached(
        PodRef("default", "web", "u1"), "lab.default.web.u1", Attachment("c1", "eth0"), read(LABS), "A=b;C=d",
        capability_args(WISHES), {"cniVersion": "1.0.0", "ips": []},
    )  # fmt: skip
    assert cache.all() == []
    cache.keep(cached)
    assert Cache(tmp_path / "results").all() == [cached]
    written = json.loads((tmp_path / "results" / "bridge-c1-eth0.json").read_text())
    assert (written["kind"], written["networkName"], written["cniArgs"]) == (
        "cniCacheV1", "bridge", [["A", "b"], ["C", "d"]],
    )  # fmt: skip
    cache.forget(cached)
    cache.forget(cached)
    assert cache.all() == []
    (tmp_path / "results" / "torn.json").write_text("{")
    with pytest.raises(CacheBroken, match=r"torn\.json"):
        cache.all()
