"""Paths taken apart, hostile ones included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.routing import RequestInfo, resolve, split
from controlplane.errors import BadRequest


def info(method: str, path: str, *, watch: bool = False) -> tuple[str, str, str, str, str, str]:
    found = resolve(method, path, watch=watch)
    assert found.is_resource
    return found.verb, found.group, found.namespace, found.resource, found.name, found.subresource


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", ("list", "", "", "pods", "", "")),
        ("GET", "/api/v1/namespaces/a/pods", ("list", "", "a", "pods", "", "")),
        ("GET", "/api/v1/namespaces/a/pods/p", ("get", "", "a", "pods", "p", "")),
        ("PUT", "/api/v1/namespaces/a/pods/p/status", ("update", "", "a", "pods", "p", "status")),
        ("POST", "/api/v1/namespaces/a/pods/p/exec", ("create", "", "a", "pods", "p", "exec")),
        ("DELETE", "/api/v1/namespaces/a/pods", ("deletecollection", "", "a", "pods", "", "")),
        ("GET", "/api/v1/namespaces", ("list", "", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/a", ("get", "", "a", "namespaces", "a", "")),
        ("PUT", "/api/v1/namespaces/a/finalize", ("update", "", "a", "namespaces", "a", "finalize")),
        ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale",
         ("patch", "apps", "a", "deployments", "d", "scale")),
        ("GET", "/api/v1/namespaces/a/pods/p%3A80", ("get", "", "a", "pods", "p:80", "")),
        ("GET", "/api/v1/pods/", ("list", "", "", "pods", "", "")),
    ],
)  # fmt: skip
def test_resource_paths(method: str, path: str, expected: tuple[str, ...]) -> None:
    assert info(method, path) == expected


def test_watch_is_a_verb_of_its_own_on_collections_and_objects() -> None:
    assert info("GET", "/api/v1/pods", watch=True)[0] == "watch"
    assert info("GET", "/api/v1/namespaces/a/pods/p", watch=True)[0] == "watch"
    assert info("GET", "/api/v1/namespaces/a/pods/p/log", watch=True)[0] == "get"


@pytest.mark.parametrize("path", ["/", "/version", "/api", "/api/v1", "/apis/apps/v1", "/healthz/ping"])
def test_other_paths_are_no_resources(path: str) -> None:
    found = resolve("GET", path)
    assert (found.is_resource, found.verb, found.path) == (False, "get", path)


@pytest.mark.parametrize(
    "path",
    ["/api/v1//pods", "/api/v1/namespaces//pods", "/api/v1/namespaces/a/pods/p/log/more"],
)
def test_paths_with_holes_or_tails_name_nothing(path: str) -> None:
    assert not resolve("GET", path).is_resource


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/a/../b/pods",
        "/api/v1/namespaces/a/%2e%2e/pods",
        "/api/v1/namespaces/a%2Fb/pods",
        "/api/v1/namespaces/%00/pods",
        "/api/v1/namespaces/%ff/pods",
        "/./api",
    ],
)
def test_unsafe_segments_are_refused(path: str) -> None:
    with pytest.raises(BadRequest):
        resolve("GET", path)


def test_percent_decoding_happens_once() -> None:
    assert split("/a/%252e%252e/b") == ("a", "%2e%2e", "b")


def test_what_follows_a_proxy_is_left_alone() -> None:
    found = resolve("GET", "/api/v1/namespaces/a/services/web:http/proxy/x/../%2e%2e//y")
    assert (found.resource, found.name, found.subresource) == ("services", "web:http", "proxy")
    assert found.rest == ("x", "..", "%2e%2e", "", "y")
    node = resolve("POST", "/api/v1/nodes/n1/proxy/healthz")
    assert (node.resource, node.name, node.subresource, node.rest) == ("nodes", "n1", "proxy", ("healthz",))


def test_objects_may_be_called_proxy() -> None:
    assert info("GET", "/api/v1/namespaces/proxy/pods/proxy") == ("get", "", "proxy", "pods", "proxy", "")
    assert info("GET", "/api/v1/namespaces/proxy/pods/p/log")[2:] == ("proxy", "pods", "p", "log")


@given(st.text(alphabet="ab/%.2eF0:", max_size=40))
def test_no_path_ever_yields_a_parent_segment(text: str) -> None:
    try:
        found = resolve("GET", "/api/v1/namespaces/" + text)
    except BadRequest:
        return
    assert isinstance(found, RequestInfo)
    for part in (found.namespace, found.resource, found.name, found.subresource):
        assert part not in (".", "..")
        assert "/" not in part
