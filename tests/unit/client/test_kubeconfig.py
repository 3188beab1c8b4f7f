"""Kubeconfig files: what is ours is written and removed, all else stays as it is."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
import yaml

from controlplane.client import kubeconfig
from controlplane.client.kubeconfig import Credentials, KubeconfigError, load, remove_context, write_context

OURS = Credentials("https://127.0.0.1:6443", ca="CA", certificate="CERT", key="KEY")
OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod", "extensions": [{"name": "x"}]}}],
    "users": [{"name": "me", "user": {"exec": {"command": "login"}}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "current-context": "prod",
}


def test_a_new_file_is_private_and_readable_again(tmp_path: Path) -> None:
    path = tmp_path / "dir" / "config"
    write_context(path, "netkit-a", OURS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path) == OURS
    assert load(path, "netkit-a") == OURS
    assert not path.with_name("config.lock").exists()


def test_other_entries_stay(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHERS))
    write_context(path, "netkit-a", OURS)
    write_context(path, "netkit-a", Credentials("https://127.0.0.1:7443", ca="CA", token="T"))
    assert load(path) == Credentials("https://127.0.0.1:7443", ca="CA", token="T")
    assert remove_context(path, "netkit-a")
    left = yaml.safe_load(path.read_text())
    assert left == {**OTHERS, "current-context": ""}
    assert not remove_context(path, "netkit-a")
    assert not remove_context(tmp_path / "none", "netkit-a")


def test_current_context_is_left_alone_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHERS))
    write_context(path, "netkit-a", OURS, current=False)
    assert yaml.safe_load(path.read_text())["current-context"] == "prod"
    remove_context(path, "netkit-a")
    assert yaml.safe_load(path.read_text()) == OTHERS


def test_files_may_be_named_instead_of_data(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("FROM FILE")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://c", "certificate-authority": "ca.pem"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    assert load(path, "x") == Credentials("https://c", ca="FROM FILE", token="t", namespace="n")


def test_faults_have_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    with pytest.raises(KubeconfigError, match="no such kubeconfig file"):
        load(path)
    path.write_text("a: [")
    with pytest.raises(KubeconfigError, match="not a readable kubeconfig"):
        load(path)
    path.write_text("- a list")
    with pytest.raises(KubeconfigError, match="not a kubeconfig"):
        write_context(path, "x", OURS)
    assert path.read_text() == "- a list"
    path.write_text("{}")
    with pytest.raises(KubeconfigError, match='no context named "x"'):
        load(path, "x")
    monkeypatch.setattr(kubeconfig, "_LOCK_SECONDS", 0.1)
    path.with_name("config.lock").touch()
    with pytest.raises(KubeconfigError, match=r"config\.lock exists"):
        write_context(path, "x", OURS)


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    threads = [threading.Thread(target=write_context, args=(path, f"c{number}", OURS)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry["name"] for entry in yaml.safe_load(path.read_text())["contexts"]} == {
        f"c{number}" for number in range(8)
    }


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = tmp_path / "real"
    target.write_text("{}")
    link = tmp_path / "config"
    link.symlink_to(target)
    write_context(link, "a", OURS)
    assert link.is_symlink()
    assert load(target) == OURS


def test_kubeconfigs_of_real_clusters(tmp_path: Path) -> None:
    path = tmp_path / "config"
    user = {"tokenFile": "var/token", "token": "older"}
    cluster = {"server": "https://api:6443", "insecure-skip-tls-verify": True}
    path.write_text(yaml.safe_dump({
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }))  # fmt: skip
    token = str(tmp_path / "var" / "token")
    assert load(path) == Credentials("https://api:6443", ca="", token_file=token, insecure=True)


def test_a_program_for_credentials_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(OTHERS))
    with pytest.raises(KubeconfigError, match="user me gets its credentials from a program"):
        load(path)


def test_inside_of_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(
        KubeconfigError, match="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
    ):
        kubeconfig.in_cluster()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(KubeconfigError, match="unable to load in-cluster configuration"):
        kubeconfig.in_cluster()
    (tmp_path / "ca.crt").write_text("CA")
    (tmp_path / "token").write_text("T")
    found = kubeconfig.in_cluster()
    assert found == Credentials("https://[fd00::1]:443", ca="CA", token_file=str(tmp_path / "token"))
