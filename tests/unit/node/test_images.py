"""The image catalogue: patterns, what runs, and the user's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from netkit.node.images.catalogue import (
    CatalogueError,
    EntryKind,
    entry_from_json,
    entry_to_json,
    split_image,
)
from netkit.node.images.resolve import ImageUnknown, Runnable, resolve
from netkit.node.images.store import ImageStore
from netkit.node.runtime.spec import ListenPort


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images.yaml")


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("nginx", ("nginx", "latest")),
        ("docker.io/library/nginx:1.25", ("nginx", "1.25")),
        ("nginx@sha256:abc", ("nginx", "latest")),
        ("localhost:5000/team/app", ("localhost:5000/team/app", "latest")),
        ("registry.k8s.io/pause:3.9", ("registry.k8s.io/pause", "3.9")),
    ],
)
def test_split_image(image: str, parts: tuple[str, str]) -> None:
    assert split_image(image) == parts


@pytest.mark.parametrize(
    ("image", "behaviour"),
    [
        ("nginx", "nginx"),
        ("nginx:latest", "nginx"),
        ("docker.io/library/nginx:1.25-alpine", "nginx"),
        ("alicek106/rr-test:echo-hostname", "hostname-page"),
        ("registry.k8s.io/serve_hostname:1.1", "hostname"),
        ("registry.k8s.io/echoserver:1.10", "echo"),
        ("registry.k8s.io/e2e-test-images/agnhost:2.39", "agnhost"),
        ("hashicorp/http-echo:0.2.3", "http-echo"),
        ("ealen/echo-server", "echo-json"),
        ("registry.k8s.io/pause:3.9", "pause"),
        ("httpd:2.4", "httpd"),
    ],
)
def test_shipped_builtin_images(store: ImageStore, image: str, behaviour: str) -> None:
    entry = store.find(image)
    assert entry is not None
    assert entry.behaviour == behaviour


@pytest.mark.parametrize(
    "image", ["busybox:1.36", "alpine", "ubuntu:22.04", "curlimages/curl", "nicolaka/netshoot"]
)
def test_shipped_program_images(store: ImageStore, image: str) -> None:
    entry = store.find(image)
    assert entry is not None
    assert entry.kind is EntryKind.PROGRAM


def run(
    store: ImageStore,
    image: str,
    command: list[str] | None = None,
    args: list[str] | None = None,
    *ports: int,
) -> Runnable:
    declared = [{"containerPort": port} for port in ports]
    return resolve(image, store.find(image), command or [], args or [], declared)


def test_default_ports_and_declared_ones(store: ImageStore) -> None:
    found = run(store, "nginx", None, None, 80, 8080).builtin
    assert found is not None
    assert found.ports == (ListenPort(80), ListenPort(8080))
    bare = run(store, "alicek106/rr-test:echo-hostname").builtin
    assert bare is not None
    assert bare.ports == (ListenPort(80),)


def test_a_command_runs_whatever_the_image(store: ImageStore) -> None:
    for image in ("nginx", "no/such:thing", "busybox"):
        assert run(store, image, ["tail"], ["-f", "/dev/null"]).argv == ("tail", "-f", "/dev/null")


def test_args_replace_cmd_and_follow_the_entrypoint(store: ImageStore) -> None:
    assert run(store, "curlimages/curl", None, ["-s", "x"]).argv == ("curl", "-s", "x")
    assert run(store, "busybox").argv == ("sh",)
    assert run(store, "busybox", None, ["sleep", "5"]).argv == ("sleep", "5")


def test_arguments_of_builtin_servers(store: ImageStore) -> None:
    echo = run(store, "hashicorp/http-echo", None, ["-text=hello", "-listen=:9090"]).builtin
    assert echo is not None
    assert (echo.text, echo.ports) == ("hello", (ListenPort(9090),))
    apart = run(store, "hashicorp/http-echo", None, ["-text", "two words"]).builtin
    assert apart is not None
    assert (apart.text, apart.ports) == ("two words", (ListenPort(5678),))
    netexec = run(
        store, "registry.k8s.io/e2e-test-images/agnhost:2.39", None, ["netexec", "--http-port=80"]
    ).builtin
    assert netexec is not None
    assert (netexec.behaviour, netexec.ports) == ("netexec", (ListenPort(80), ListenPort(8081, "UDP")))
    pause = run(store, "registry.k8s.io/e2e-test-images/agnhost:2.39").builtin
    assert pause is not None
    assert pause.behaviour == "pause"


def test_unknown_image_comes_with_advice(store: ImageStore) -> None:
    with pytest.raises(
        ImageUnknown,
        match=r'image "foo/bar:1" is not in the catalogue; add it with: netkit image add foo/bar:1',
    ):
        run(store, "foo/bar:1")


def test_user_entries_come_first_and_survive(store: ImageStore, tmp_path: Path) -> None:
    store.add(entry_from_json({"match": "nginx", "builtin": "echo", "ports": [80, "53/udp"]}))
    store.add(entry_from_json({"match": "my/*", "root": "/srv/x", "entrypoint": ["/run"], "env": {"A": "1"}}))
    other = ImageStore(tmp_path / "images.yaml")
    found = other.find("nginx:1")
    assert found is not None
    assert (found.behaviour, found.user) == ("echo", True)
    rooted = run(other, "my/app:2", None, ["arg"])
    assert (rooted.argv, rooted.root, dict(rooted.env)) == (("/run", "arg"), "/srv/x", {"A": "1"})
    assert store.remove("nginx")
    assert not store.remove("nginx")
    again = other.find("nginx")
    assert again is not None
    assert again.behaviour == "nginx"


def test_entries_round_trip(store: ImageStore) -> None:
    for entry in store.entries():
        assert entry_from_json(entry_to_json(entry)) == entry


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, "match: "),
        ({"match": "x"}, "exactly one of builtin, program and root"),
        ({"match": "x", "builtin": "echo", "program": True}, "exactly one"),
        ({"match": "x", "builtin": "nothing"}, 'unknown builtin "nothing"'),
        ({"match": "x", "root": "relative"}, "absolute path"),
        ({"match": "x", "program": True, "prots": [1]}, "unknown field prots"),
        ({"match": "x", "builtin": "echo", "ports": [0]}, "is not a port"),
        ({"match": "x", "program": True, "cmd": "sh"}, "cmd must be a list"),
    ],
)
def test_wrong_entries_name_the_field(data: dict[str, object], text: str) -> None:
    with pytest.raises(CatalogueError, match=text):
        entry_from_json(data)


@pytest.mark.parametrize("text", ["images: 5", "- x", "images: [5]", "{", "images: [{match: x}]"])
def test_broken_user_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.yaml").write_text(text)
    with pytest.raises(CatalogueError, match=r"images\.yaml"):
        ImageStore(tmp_path / "images.yaml").entries()
