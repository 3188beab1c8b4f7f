"""Bodies, patches, selectors, tokens and paths of any bytes: a value or one clear refusal, never anything else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from support.fuzzing.requests import directed, orjson_bytes
from support.fuzzing.samples import samples
from support.fuzzing.values import mutated
from support.protobuf_bodies import BODIES

from controlplane.apiserver import bodies, deadline
from controlplane.apiserver.bodies import Target
from controlplane.apiserver.options import FieldValidation, Query, delete_options, list_options, watch_options
from controlplane.apiserver.registry.continuation import Continuation, parse_token
from controlplane.apiserver.registry.requests import PatchType
from controlplane.apiserver.registry.versions import parse_version
from controlplane.apiserver.routing import RequestInfo, resolve
from controlplane.apiserver.user import ANONYMOUS
from controlplane.errors import StatusError
from controlplane.meta.fields import FieldSelector
from controlplane.meta.labels import LabelSelector
from controlplane.meta.patch.json_patch import apply_json_patch
from controlplane.meta.patch.merge import apply_merge_patch
from controlplane.meta.patch.strategic import apply_strategic
from controlplane.resources.catalog import POD
from controlplane.schema.definitions import type_for

QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
PODS = Target("v1", "Pod")
DEPTH = 100_000
OPERATIONS = ("add", "remove", "replace", "move", "copy", "test", "x", "", None)
POINTERS = (
    "", "/", "/spec", "/spec/containers/0", "/spec/containers/-", "/spec/containers/01",
    "/spec/containers/9999999999", "x", None,
    "/spec/containers/-1", "/spec/containers/0/env/1", "/~", "/~2", "/~0~1", "/metadata/name/x",
    "/spec/volumes", 3, [], "/\ud800",
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
"""Surrogates too."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
JSON = [
    b"", b"{", b"null", b"[]", b'"', b"nul", b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b'{"a":NaN}', b'{"a":Infinity}',
    b'{"a":1e999999}', b'{"a":-0}', b'{"metadata":{"name":"\\ud800"}}', b'{"metadata":{"name":"\\udc00\\ud800"}}',
    b'{"a":' + b"9" * 10_000 + b"}", b'{"metadata":{"generation":' + b"9" * 30 + b"}}", b"[" * DEPTH,
    b'{"a":' * DEPTH,
    b'{"metadata":' * 2000 + b"1" + b"}" * 2000, b'{"a":1,"a":2,"\\u0061":3}', b'{"\\u0000":1}', b'{"":{"":{"":1}}}',
    b'{"spec":{"containers":' + b"[" * 500 + b"]" * 500 + b"}}", b'{"kind":1}', b'{"apiVersion":[],"kind":{}}',
    b'{"metadata":[]}', b'{"metadata":"x"}', b'{"metadata":{"labels":{"a":1}}}',
    b'{"metadata":{"managedFields":[null]}}',
]  # fmt: skip
LAUGHS = b"".join(
    [b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n",
     *(b"a%d: &a%d [%s]\n" % (n, n,
    b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12))]
)  # fmt: skip
YAML = [
    *JSON, LAUGHS, b"a: &a [*a]", b"&a {x: *a}", b"!!python/object/apply:os.system [x]", b"a: b\n---\nc: d",
    b"%YAML 9.9\n---\n",
    b"a: !!binary x", b"? {a: b}\n: c", b"? [a]\n: c", b"<<: [1]", b"<<: {a: b}\na: c", b"&a <<: *a",
    b"a: .nan", b"a: .inf",
    b"a: 0x" + b"f" * 9000, b"a: " + b"9" * 9000, b"a: 1_000", b"a: 1:30:00", b"a: 2001-01-01",
    b"a: 2001-99-99", b"\t", b"{a: b",
    b"a: 'x", b"- " * 5000 + b"x", b"[" * 2000, b"a: \x00", b"a: \xc3\x28", b"\xff\xfea\x00:\x00 \x001\x00",
    b"!<x> y",
    b"metadata: {name: !!timestamp 2001-01-01}", b"metadata: {name: !!set {x}}", b"metadata: {name: !!omap [{a: b}]}",
    b"metadata: {name: !!binary YQ==}", b"metadata: {name: !!binary /w==}", b"metadata: !!set {name}",
    b"spec: !!pairs [x]",
    b"metadata: {generation: 99999999999999999999999}", b"spec: {priority: -" + b"9" * 400 + b"}",
    b"a: !!int x", b"a: !!float x", b"a: !!timestamp x", b"a: !!set {x}", b"a: !!omap [x]", b"a: !!bool x",
    b"a: 08", b"a: 0o8",
]  # fmt: skip


def accepted(content_type: str, body: bytes, target: Target = PODS) -> Any:
    """The object, None for what is refused; anything but a StatusError is a fault."""
    found = answer(
        lambda: bodies.accept(bodies.decode(content_type, body, target), target, FieldValidation.WARN, [])
    )
    if not isinstance(found, StatusError):
        orjson.dumps(found)
        return found
    assert 400 <= found.code < 500
    orjson.dumps(found.status())
    return None


def answer(ask: Callable[[], Any]) -> Any:
    """What comes of it; a refusal is a value."""
    try:
        return ask()
    except StatusError as refusal:
        return refusal


@pytest.mark.parametrize("body", JSON, ids=lambda body: repr(body[:20]))
def test_json(body: bytes) -> None:
    accepted("application/json", body)
    for kind in PatchType:
        try:
            bodies.decode_patch(kind, body, PODS)
        except StatusError as refusal:
            orjson.dumps(refusal.status())


@pytest.mark.parametrize("body", YAML, ids=lambda body: repr(body[:20]))
def test_yaml(body: bytes) -> None:
    accepted("application/yaml", body)


def test_laughing_costs_nothing() -> None:
    with pytest.raises(StatusError, match="excessive aliasing"):
        bodies.decode("application/yaml", LAUGHS, PODS)


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    for content_type in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
        accepted(content_type, body)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A good protobuf body of kubectl with bytes changed, lost, doubled or put in."""
    body = bytearray(draw(st.sampled_from(sorted(BODIES.values()))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(body) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0:
                body[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del body[at : at + draw(st.integers(1, 20))]
            case 2:
                body[at:at] = draw(st.binary(max_size=6))
            case 3:
                body[at:at] = body[at : at + draw(st.integers(1, 40))]
            case 4:
                body[at:at] = b"\xff" * 9 + b"\x01"
    return bytes(body)


@settings(QUICK, max_examples=150)
@given(broken())
def test_broken_protobuf(body: bytes) -> None:
    for target in (PODS, Target("apps/v1", "Deployment"), Target("v1", "Service"), Target("v1", "ConfigMap")):
        accepted("application/vnd.kubernetes.protobuf", body, target)


@pytest.mark.parametrize(
    "group", [b"\x0b" * 5000, b"\x0a\xff\xff\xff\xff\x0f", b"\x08" + b"\x80" * 5000, b"\x00", b"\xff" * 20]
)
def test_protobuf_that_claims_much(group: bytes) -> None:
    for body in (group, b"k8s\0" + group, b"k8s\0\x12" + bytes([len(group) % 128]) + group):
        assert accepted("application/vnd.kubernetes.protobuf", body) is None


def test_patches() -> None:
    """Refused or applied; what is patched is never touched."""
    random = Random(5)
    pod = {**samples()["Pod"], "metadata": {"name": "x"}}
    before = orjson.dumps(pod)
    schema = type_for("v1", "Pod")
    for _ in range(400):
        patch: Any = orjson.loads(orjson_bytes(mutated(random, mutated(random, pod))))
        if isinstance(patch, dict):
            patch = directed(random, {key: patch[key] for key in patch if random.random() < 0.6})
        operation = {
            "op": random.choice(OPERATIONS),
            "path": random.choice(POINTERS),
            "from": random.choice(POINTERS),
        }
        for apply in (
            lambda p=patch: apply_merge_patch(pod, p),
            lambda p=patch, o=operation: apply_json_patch(pod, [{**o, "value": p}, p]),
            lambda p=patch, o=operation: apply_json_patch(pod, [{**o, "value": p}, {**o, "op": "copy"}]),
            lambda p=patch: apply_strategic(pod, p, schema),
        ):
            with suppress(StatusError, ValueError):
                apply()
        assert orjson.dumps(pod) == before


def fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


@settings(QUICK, max_examples=150)
@given(TEXT | st.text("ab=!,()<>in ot\\.-/1", max_size=14))
@example("a>" + "9" * 5000)
@example("(" * 5000)
def test_selectors(text: str) -> None:
    for parse in (LabelSelector.parse, FieldSelector.parse):
        try:
            found: Any = parse(text)
        except ValueError:
            continue
        if isinstance(found, LabelSelector):
            found.matches({"a": "1", "b": ""})
            assert str(LabelSelector.parse(str(found))) == str(found)


NUMBERS = st.sampled_from(
    ["", "0", "1", "-1", "x", "9" * 18, str(2**63 - 1), str(2**63), str(2**64 - 1), str(2**64), "9" * 5000,
    "0" * 5000, "1_0", "٣",
     "1.0", "+1", " 1", "1 ", "\n", "NaN", "1e3", "0x1"]
)  # fmt: skip


@settings(QUICK, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["limit", "continue", "resourceVersion", "resourceVersionMatch", "timeoutSeconds",
                "labelSelector", "fieldSelector",
                 "sendInitialEvents", "allowWatchBookmarks", "gracePeriodSeconds", "propagationPolicy",
                 "dryRun", "orphanDependents"]
            ),
            NUMBERS | TEXT,
        ),
        max_size=5,
    ),
    st.none() | VALUES,
)  # fmt: skip
def test_queries(pairs: list[tuple[str, str]], body: Any) -> None:
    query = Query(pairs)
    for read in (
        lambda: list_options(query, POD),
        lambda: watch_options(query, POD),
        lambda: delete_options(query, body, ANONYMOUS),
        lambda: parse_version(query.text("resourceVersion")),
        lambda: parse_token(query.text("continue"), "default"),
        lambda: deadline.seconds(Query([("timeout", query.text("limit"))]), 60.0),
    ):
        found = answer(read)
        assert not isinstance(found, StatusError) or 400 <= found.code < 500


@QUICK
@given(VALUES)
def test_tokens(value: Any) -> None:
    body = {"v": "meta.k8s.io/v1", "rv": value, "start": "default/x\0"}
    for forged in (body, value, {**body, "rv": 5, "start": value}, {**body, "v": value}):
        if not fits(forged):
            continue
        token = base64.urlsafe_b64encode(orjson.dumps(forged)).decode().rstrip("=")
        place = answer(lambda given=token: parse_token(given, "default"))
        assert place.code == 400 if isinstance(place, StatusError) else place.after.startswith("default/")


@QUICK
@given(st.integers(1, 2**62), st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20))
def test_our_own_tokens_lead_on(revision: int, name: str) -> None:
    key = f"default/{name}"
    if ".." not in key.split("/") and not key.endswith("\0"):
        assert parse_token(Continuation(revision, key).token(), "default") == Continuation(revision, key)


def parts(info: RequestInfo) -> tuple[str, ...]:
    return info.verb, info.group, info.version, info.namespace, info.resource, info.name, info.subresource


SEGMENTS = st.sampled_from(
    ["api", "apis", "v1", "apps", "namespaces", "default", "pods", "secrets", "x", "status", "proxy", "log",
    "exec", "..", ".", "",
     "%2e%2e", "%2E", "%2f", "%252f", "..%2f..", "%00", "é", "%c3%a9", "%ff", "a%2Fb", "proxy%2f", "%70roxy",
     "watch", "A"]
)  # fmt: skip


@settings(QUICK, max_examples=250)
@given(
    st.lists(SEGMENTS, max_size=9),
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "x"]),
    st.booleans(),
)
def test_what_is_authorized_is_what_is_served(segments: list[str], method: str, watch: bool) -> None:
    """One value goes to authorizer and handler; however a path is spelled, it names the plain one's object."""
    path = "/" + "/".join(segments)
    found = answer(lambda: resolve(method, path, watch=watch))
    if isinstance(found, StatusError):
        assert found.code == 400
        return
    for part in (found.group, found.version, found.namespace, found.resource, found.name, found.subresource):
        assert part not in (".", "..")
        assert "/" not in part
        assert "\0" not in part
    if not found.is_resource:
        assert ".." not in found.path.split("/") or not found.path.startswith("/api")
        return
    plain = (
        ["api", quote(found.version)]
        if not found.group
        else ["apis", quote(found.group), quote(found.version)]
    )
    if found.namespace and found.resource != "namespaces":
        plain += ["namespaces", quote(found.namespace)]
    plain += [quote(part) for part in (found.resource, found.name, found.subresource) if part]
    again = resolve(method, "/" + "/".join(plain), watch=watch)
    assert parts(again) == parts(found)
