"""PolicyRules: allowing, covering, printing."""

from __future__ import annotations

import pytest
from support.policy import rule

from controlplane.apiserver.authz.rules import Rules, compact, compact_text, missing, path_matches, wanted
from controlplane.apiserver.routing import RequestInfo


def allows(source: object, verb: str, what: str, name: str = "") -> bool:
    resource, _, subresource = what.partition("/")
    plural, _, group = resource.partition(".")
    info = RequestInfo(verb, "", True, group, "v1", "ns", plural, name, subresource)
    return Rules([source]).allowing(info, *wanted(info)) is not None


@pytest.mark.parametrize(
    ("source", "verb", "what", "name", "expected"),
    [
        (rule("get", "", "pods"), "get", "pods", "x", True),
        (rule("get", "", "pods"), "list", "pods", "", False),
        (rule("get", "", "pods"), "GET", "pods", "", False),
        (rule("get", "", "pods"), "get", "pods/log", "x", False),
        (rule("get", "", "pods/log"), "get", "pods", "x", False),
        (rule("get", "", "pods/*"), "get", "pods/log", "x", False),
        (rule("get", "", "*"), "get", "pods/log", "x", True),
        (rule("*", "*", "*/scale"), "update", "deployments.apps/scale", "x", True),
        (rule("*", "*", "*/scale"), "update", "deployments.apps/status", "x", False),
        (rule("*", "*", "*/scale"), "get", "scale", "x", False),
        (rule("get", "apps", "pods"), "get", "pods", "x", False),
        (rule("get", "*", "pods"), "get", "pods.metrics.k8s.io", "x", True),
        (rule("get", "", "pods", "a,b"), "get", "pods", "b", True),
        (rule("get", "", "pods", "a,b"), "get", "pods", "c", False),
        (rule("list", "", "pods", "a"), "list", "pods", "", False),
        (rule("*", "*", "*"), "anything", "whatever.example.com/sub", "n", True),
        ({"verbs": ["*"], "nonResourceURLs": ["*"]}, "get", "pods", "x", False),
    ],
)
def test_what_a_rule_about_resources_allows(
    source: object, verb: str, what: str, name: str, expected: bool
) -> None:
    assert allows(source, verb, what, name) is expected


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/", False),
        ("/healthz/*", "/healthz/ping", True),
        ("/healthz/*", "/healthz", False),
        ("/healthz*", "/healthzzz", True),
        ("*", "/anything", True),
        ("/api*", "/apis/apps", True),
    ],
)
def test_paths(url: str, path: str, expected: bool) -> None:
    assert path_matches(url, path) is expected


def test_covering_goes_part_by_part() -> None:
    owned = [rule("get,list", "", "pods"), rule("*", "apps", "*"), rule("get", "", "secrets", "a")]
    assert missing(owned, [rule("get", "", "pods", "any")]) == []
    assert missing(owned, [rule("create,delete", "apps", "deployments,deployments/scale")]) == []
    assert missing(owned, [rule("get,delete", "", "pods")]) == [rule("delete", "", "pods")]
    assert missing(owned, [rule("get", "", "secrets")]) == [rule("get", "", "secrets")]
    assert missing(owned, [rule("get", "", "secrets", "a,b")]) == [rule("get", "", "secrets", "b")]
    assert missing(owned, [rule("*", "", "pods")]) == [rule("*", "", "pods")]
    # One owned rule must cover a part alone: two halves do not make a whole.
    assert missing([rule("get", "", "a"), rule("list", "", "a")], [rule("get,list", "", "a")]) == []
    scale = [rule("get", "*", "*/scale")]
    assert missing(scale, [rule("get", "apps", "deployments/scale")]) == []
    assert missing(scale, [rule("get", "apps", "deployments")]) == [rule("get", "apps", "deployments")]
    urls = [{"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}]
    assert missing(urls, [{"verbs": ["get"], "nonResourceURLs": ["/healthz/ping"]}]) == []
    assert missing(urls, [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]) != []


def test_texts() -> None:
    lacking = missing([], [rule("get,list", "apps", "deployments,replicasets")])
    assert sorted(map(compact_text, compact(lacking))) == [
        '{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}',
        '{APIGroups:["apps"], Resources:["replicasets"], Verbs:["get" "list"]}',
    ]
    named = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}
    assert compact_text(named) == (
        '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}'
    )
    url = {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}
    assert compact_text(url) == '{NonResourceURLs:["/metrics"], Verbs:["get"]}'
