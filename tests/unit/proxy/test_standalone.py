"""What `netkit proxy` finds out before it starts: its name, its Node, how to reach the API."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.client_fake import FakeApi
from support.client_wait import until

from controlplane.client import kubeconfig
from controlplane.client.kubeconfig import Credentials, KubeconfigError
from controlplane.resources.catalog import NODE
from netkit.proxy import standalone
from netkit.proxy.configuration.flags import Options, complete, read
from netkit.proxy.standalone import ProxyError, credentials, node_name


def options(**flags: str) -> Options:
    return complete(read({name.replace("_", "-"): [text] for name, text in flags.items()}))


def test_the_nodes_name_is_the_host_name_in_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: " Machine-1.Example ")
    assert node_name(options().configuration) == "machine-1.example"
    assert node_name(options(hostname_override="Other").configuration) == "other"
    monkeypatch.setattr(socket, "gethostname", lambda: " ")
    with pytest.raises(ProxyError, match="empty hostname is invalid"):
        node_name(options().configuration)


def test_the_api_is_reached_as_the_kubeconfig_says_but_for_master(tmp_path: Path) -> None:
    path = tmp_path / "config"
    found = Credentials("https://10.0.0.1:6443", ca="CA", token="T")
    kubeconfig.write_context(path, "x", found)
    assert credentials(options(kubeconfig=str(path))) == found
    over = options(kubeconfig=str(path), master="https://other:1")
    assert credentials(over) == replace(found, server="https://other:1")
    assert credentials(options(master="http://127.0.0.1:8080")) == Credentials("http://127.0.0.1:8080", "")


def test_without_both_it_must_be_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="in-cluster"):
        credentials(options())


async def test_the_node_is_waited_for_and_its_addresses_are_internal_ones_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = FakeApi()
    task = asyncio.create_task(standalone._wait_for_node(api.client(), "n1"))
    await until(lambda: "n1: no Node of this name" in caplog.text)
    addresses = [("ExternalIP", "203.0.113.9"), ("InternalIP", "fd00::7"), ("InternalIP", "192.0.2.7"),
                 ("Hostname", "n1"), ("ExternalIP", "fd00::7")]  # fmt: skip
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1"},
        "spec": {"podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": [{"type": kind, "address": text} for kind, text in addresses]},
    }
    await api.client().create(NODE, node)
    async with asyncio.timeout(5):
        found = await task
    assert found.addresses == tuple(ip_address(text) for text in ("fd00::7", "192.0.2.7", "203.0.113.9"))
    assert found.pod_cidrs == ("10.244.1.0/24",)
