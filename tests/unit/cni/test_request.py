from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import pytest

from netkit.cni.errors import CniError
from netkit.cni.main import respond
from netkit.cni.request import Attachment, Command, request
from netkit.cni.sample import conflist
from netkit.podnet.attach import Attach

ENVIRONMENT = {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/c1", "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni", "CNI_ARGS": "IgnoreUnknown=1",
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "lab", "type": "netkit-cni",
    "ipam": {"type": "netkit", "subnet": "10.22.0.0/24"},
}  # fmt: skip


def test_a_call_is_read() -> None:
    found = request(ENVIRONMENT, json.dumps({**CONFIG, "attach": "ptp", "mtu": 1400, "args": {"x": 1}}))
    assert found.command is Command.ADD
    assert found.attachment == Attachment("c1", "eth0")
    assert found.path == ("/opt/cni/bin", "/usr/lib/cni")
    assert found.arguments == "IgnoreUnknown=1"
    assert (found.config.attach, found.config.mtu, found.config.bridge) == (Attach.PTP, 1400, "cni0")
    assert found.config.subnet == IPv4Network("10.22.0.0/24")


@pytest.mark.parametrize(
    ("environment", "config", "code", "message"),
    [
        ({"CNI_COMMAND": ""}, {}, 4, "CNI_COMMAND env variable missing"),
        ({"CNI_COMMAND": "FLY"}, {}, 4, "unknown CNI_COMMAND: FLY"),
        ({"CNI_NETNS": "", "CNI_IFNAME": ""}, {}, 4, "required env variables [CNI_NETNS,CNI_IFNAME] missing"),
        ({"CNI_CONTAINERID": "../x"}, {}, 4, "invalid characters in containerID"),
        ({"CNI_IFNAME": "a-name-too-long-"}, {}, 4, "interface name is invalid"),
        ({"CNI_IFNAME": "a/b"}, {}, 4, "interface name is invalid"),
        ({}, {"cniVersion": "0.2.0"}, 1, "incompatible CNI versions"),
        ({}, {"cniVersion": None}, 1, "incompatible CNI versions"),
        ({"CNI_COMMAND": "CHECK"}, {"cniVersion": "0.3.1"}, 1, "config version 0.3.1 has no CHECK"),
        ({"CNI_COMMAND": "GC"}, {}, 1, "config version 1.0.0 has no GC"),
        ({"CNI_COMMAND": "CHECK"}, {}, 7, "prevResult: is required by CHECK"),
        ({}, {"prevResult": {"ips": []}}, 7, "prevResult: netkit-cni makes the interface"),
        ({}, {"name": "a b"}, 7, "name: invalid characters"),
        ({}, {"attach": "macvlan"}, 7, "attach: 'macvlan' is not one of bridge, ptp"),
        ({}, {"mtu": "big"}, 7, "mtu: expected a number"),
        ({}, {"ipMasq": "yes"}, 7, "ipMasq: expected true or false"),
        ({}, {"hairpin": True}, 2, "unknown field 'hairpin'"),
        ({}, {"ipam": {}}, 7, "ipam.type: is missing"),
        ({}, {"ipam": {"type": "netkit", "subnet": "10.0.0.1/24"}}, 7, "ipam.subnet: "),
        (
            {},
            {"ipam": {"type": "netkit", "subnet": "10.0.0.0/30"}},
            7,
            "ipam.subnet: 10.0.0.0/30 is too small",
        ),
        ({}, {"ipam": {"type": "netkit", "range": "x"}}, 2, "unknown field 'range' in ipam"),
        ({"CNI_COMMAND": "DEL"}, {"prevResult": {"ip4": {}}}, 1, "a result of CNI 0.2.0 or older"),
        ({"CNI_COMMAND": "DEL"}, {"prevResult": {"ips": [{"address": "x"}]}}, 6, "the result cannot be"),
    ],
)
def test_refusals_have_the_specifications_codes(
    environment: dict[str, str], config: dict[str, Any], code: int, message: str
) -> None:
    stdin = json.dumps({key: value for key, value in {**CONFIG, **config}.items() if value is not None})
    status, told = respond(ENVIRONMENT | environment, stdin)
    assert status == 1
    assert told is not None
    assert (told["code"], told["msg"][: len(message)]) == (code, message)
    assert told["cniVersion"] in ("1.0.0", "1.1.0", "0.3.1")


@pytest.mark.parametrize("stdin", ["", "{", "[]"])
def test_what_is_no_configuration_is_undecodable(stdin: str) -> None:
    with pytest.raises(CniError) as caught:
        request(ENVIRONMENT, stdin)
    assert caught.value.code == 6


def test_version_needs_nothing() -> None:
    status, told = respond({"CNI_COMMAND": "VERSION"}, "")
    assert status == 0
    assert told == {"cniVersion": "1.1.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


def test_attachments_that_are_valid_are_read() -> None:
    valid = [{"containerID": "a", "ifname": "eth0"}]
    text = json.dumps({**CONFIG, "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid})
    found = request({"CNI_COMMAND": "GC", "CNI_PATH": "/opt/cni/bin"}, text)
    assert found.config.valid == {Attachment("a", "eth0")}


def test_the_sample_is_one_that_works() -> None:
    listed = conflist("lab", "ptp", "10.5.0.0/24", "0.4.0")
    own = listed["plugins"][0]
    found = request(
        ENVIRONMENT, json.dumps({**own, "name": listed["name"], "cniVersion": listed["cniVersion"]})
    )
    assert found.config.attach is Attach.PTP
    with pytest.raises(CniError, match="attach"):
        conflist("lab", "tunnel", "10.5.0.0/24", "0.4.0")
