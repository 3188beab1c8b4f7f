from __future__ import annotations

import os
from pathlib import Path

from support.kernel import own_host

from netkit.kernel import netns, probe, process, rtnl_read
from netkit.kernel.ledger import Ledger
from netkit.kernel.teardown import teardown


@own_host
def test_the_probe_tries_everything_and_leaves_nothing() -> None:
    found = {feature.name: feature for feature in probe.features()}
    assert list(found) == [trial.name for trial in probe.TRIALS]
    for needed in ("root or CAP_NET_ADMIN", "link veth", "link bridge"):
        assert found[needed].present, found[needed]
    for feature in found.values():
        assert feature.needed_by
        assert feature.present or (feature.detail and feature.how_to_get), feature


@own_host
def test_it_says_what_ip_says(tmp_path: Path) -> None:
    """An independent way to the same answer."""
    found = {feature.name: feature.present for feature in probe.features()}
    for kind in ("dummy", "wireguard", "vxlan"):
        extra = ["id", "5", "dstport", "4789"] if kind == "vxlan" else []
        made = process.run(["ip", "link", "add", "probe0", "type", kind, *extra]).returncode == 0
        if made:
            process.run(["ip", "link", "del", "probe0"], check=True)
        assert found[f"link {kind}"] == made
    netem = process.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]).returncode == 0
    if netem:
        process.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)
    assert found["qdisc netem"] == netem


@own_host
def test_a_missing_command_is_named() -> None:
    path, os.environ["PATH"] = os.environ["PATH"], "/nowhere"
    try:
        from netkit.kernel import probe_checks

        probe_checks._ENVIRONMENT["PATH"] = "/nowhere"
        found = {feature.name: feature for feature in probe.features()}
    finally:
        os.environ["PATH"] = path
    assert found["nf_tables"].detail == "nft is not installed"
    assert found["link veth"].present


@own_host
def test_it_leaves_nothing_in_a_process_that_has_been_in_other_namespaces(tmp_path: Path) -> None:
    """A thread that has entered a namespace remembers where it came from, and so does a process forked from it."""
    with Ledger(tmp_path, "me") as ledger, netns.create("probed", ledger) as ns, netns.entered(ns):
        pass
    assert probe.features(["qdisc tbf"])[0].detail in ("", "Specified qdisc kind is unknown")
    assert set(rtnl_read.links(netns.HOST)) == {"lo"}
    teardown(tmp_path)
