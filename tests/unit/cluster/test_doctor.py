"""Which proxy modes a machine can have, by what the probe found."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from netkit.cluster import doctor
from netkit.cluster.config import ClusterConfig, NetworkConfig
from netkit.cluster.errors import ClusterError
from netkit.cluster.up import up
from netkit.kernel.probe import TRIALS, Feature
from netkit.podnet.modes import NetworkMode
from netkit.proxy.settings import ProxyMode


def found(*absent: str) -> list[Feature]:
    return [Feature(trial.name, trial.name not in absent, "detail", "x", "how") for trial in TRIALS]


def test_modes_by_features() -> None:
    assert doctor.modes(found()) == tuple(ProxyMode)
    assert doctor.modes(found("ip_vs")) == (ProxyMode.IPTABLES, ProxyMode.NFTABLES, ProxyMode.USERSPACE)
    assert doctor.modes(found("nf_tables", "ipset")) == (ProxyMode.IPTABLES, ProxyMode.USERSPACE)
    assert doctor.modes(found("iptables match statistic")) == (ProxyMode.NFTABLES,)


def test_what_modes_need_is_tried() -> None:
    tried = {trial.name for trial in TRIALS}
    assert all(needed <= tried for needed in doctor.NEEDED_BY_MODE.values())


def test_a_mode_that_cannot_be_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def features(wanted: Collection[str]) -> list[Feature]:
        return [feature for feature in found("ip_vs") if feature.name in wanted]

    monkeypatch.setattr(doctor, "features", features)
    doctor.require_mode(ProxyMode.IPTABLES)
    with pytest.raises(ClusterError) as caught:
        doctor.require_mode(ProxyMode.IPVS)
    assert caught.value.message == "proxy mode ipvs needs ip_vs, which this machine lacks: detail"
    assert caught.value.hint.startswith("how; ")


def test_encryption_needs_the_kernel_or_a_program() -> None:
    assert set(doctor.ENCRYPTING) <= {trial.name for trial in TRIALS}
    for one in doctor.ENCRYPTING:
        assert NetworkMode.WIREGUARD in doctor.network_modes(found(one))
    assert doctor.network_modes(found(*doctor.ENCRYPTING)) == tuple(
        mode for mode in NetworkMode if mode is not NetworkMode.WIREGUARD
    )


def test_up_refuses_to_encrypt_without_either_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def features(wanted: Collection[str]) -> list[Feature]:
        return [feature for feature in found(*doctor.ENCRYPTING) if feature.name in wanted]

    monkeypatch.setattr(doctor, "features", features)
    monkeypatch.setenv("NETKIT_STATE", str(tmp_path / "state"))
    config = ClusterConfig(name="secret", network=NetworkConfig(mode=NetworkMode.WIREGUARD))
    with pytest.raises(ClusterError) as caught:
        up(config, tmp_path / "kubeconfig", lambda _: None)
    assert caught.value.message == (
        "network mode wireguard needs WireGuard, and this machine has neither link wireguard (detail), nor "
        "wireguard-go (detail)"
    )
    assert caught.value.hint.startswith("install the package wireguard-go, or modprobe wireguard; ")
    assert [path for path in tmp_path.rglob("*") if "secret" in path.name] == []
    doctor.require_network(NetworkMode.VXLAN)
