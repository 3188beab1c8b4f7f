"""Whatever object is written as Go writes it comes back; whatever bytes come, BadRequest is the worst answer."""

import base64
import random

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from support import protobuf as wire
from support.properties import examples
from support.protobuf_bodies import BODIES

from controlplane.apiserver import bodies
from controlplane.apiserver.options import FieldValidation
from controlplane.errors import BadRequest
from controlplane.schema import definitions, protobuf_table, strict
from controlplane.schema.protobuf import CONTENT_TYPE, PREFIX, decode
from controlplane.schema.protobuf_table import Shape

KINDS = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "Node"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Event"),
    ("v1", "Endpoints"),
    ("v1", "DeleteOptions"),
    ("v1", "PersistentVolume"),
    ("v1", "PodList"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ControllerRevision"),
    ("batch/v1", "CronJob"),
    ("coordination.k8s.io/v1", "Lease"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("networking.k8s.io/v1", "Ingress"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("authorization.k8s.io/v1", "SubjectAccessReview"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
]
WORDS = ["", "a", "web", "ä€", "80"]
TIME = "2026-01-02T03:04:05"


class Maker:
    """Objects of a message in the form they have after decoding, made at random."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def obj(self, name: str, depth: int = 0) -> dict:
        made: dict = {}
        fields = protobuf_table.message(name)
        assert fields is not None
        for field in fields.values():
            if not field.json:
                made.update(self.obj(field.type, depth))
            elif "." in field.type and depth > 4:
                continue
            elif self.random.random() < 0.4:
                made[field.json] = self.shaped(field.shape, field.type, depth)
        return as_decoded(made, fields)

    def shaped(self, shape: Shape, type_: str, depth: int) -> object:
        if shape is Shape.LIST:
            return [self.value(type_, depth) for _ in range(self.random.randint(1, 2))]
        if shape is Shape.MAP:
            return {self.random.choice(WORDS): self.value(type_, depth) for _ in range(2)}
        return self.value(type_, depth)

    def value(self, type_: str, depth: int) -> object:
        if "." in type_:
            return self.obj(type_, depth + 1)
        return {
            "string": lambda: self.random.choice(WORDS),
            "bytes": lambda: base64.b64encode(self.random.randbytes(self.random.randint(0, 4))).decode(),
            "bool": lambda: self.random.random() < 0.5,
            "int32": lambda: self.random.choice([0, 1, -1, 80, 2**31 - 1, -(2**31)]),
            "int64": lambda: self.random.choice([0, 1, -1, 2**63 - 1, -(2**63)]),
            "Quantity": lambda: self.random.choice(["0", "1", "100m", "1Gi"]),
            "IntOrString": lambda: self.random.choice([0, 8080, -1, "http", "25%"]),
            "Time": lambda: f"{TIME}Z",
            "MicroTime": lambda: f"{TIME}.000{self.random.randint(100, 999)}Z",
            "RawJSON": lambda: self.random.choice([{}, {"f:a": {"x": [1, None, "b"]}}, [], "text", 0]),
            "Strings": lambda: self.random.choices(WORDS, k=self.random.randint(1, 2)),
        }[type_]()


def as_decoded(made: dict, fields: dict) -> dict:
    """Without the zeros that are no statement, and with those Go always writes."""
    for field in fields.values():
        if not field.json:
            continue
        if field.shape is Shape.PLAIN and "." in field.type:
            inner = protobuf_table.message(field.type)
            made.setdefault(field.json, as_decoded({}, inner))
        elif field.shape in (Shape.PLAIN, Shape.ALWAYS) and field.type == "Quantity":
            made.setdefault(field.json, "0")
        elif field.shape is Shape.ALWAYS and field.type in ZEROS:
            made.setdefault(field.json, ZEROS[field.type])
        plain = field.shape is Shape.PLAIN and field.type != "RawJSON"
        if plain and made.get(field.json) in ("", 0, {}, False):
            del made[field.json]
    return made


ZEROS = {"string": "", "bool": False, "int32": 0, "int64": 0, "IntOrString": 0}


def message_of(kind: tuple[str, str]) -> str:
    name = definitions.name_for(*kind)
    assert name is not None
    return name


@given(st.sampled_from(KINDS), st.integers(0, 2**32))
def test_round_trip(kind, seed):
    obj = Maker(seed).obj(message_of(kind))
    expected = {"apiVersion": kind[0], "kind": kind[1], **obj}
    found = decode(wire.encode(obj, *kind))
    assert found == expected
    # 0 == False: the printed form tells them apart.
    order = orjson.OPT_SORT_KEYS
    assert orjson.dumps(found, option=order) == orjson.dumps(expected, option=order)
    checked = strict.check(found, *kind)
    assert (checked.unknown, checked.type_errors) == ([], [])


def fate(body: bytes, target: bodies.Target) -> str:
    """What the API server makes of a body; anything raised but BadRequest fails the test."""
    try:
        decoded = bodies.decode(CONTENT_TYPE, body, target)
        bodies.accept(decoded, target, FieldValidation.STRICT, [])
    except BadRequest:
        return "refused"
    orjson.dumps(decoded.value)
    return "read"


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_any_bytes_as_a_message(raw, kind):
    fate(wire.envelope(raw, *kind), bodies.Target(*kind))


@given(st.binary(max_size=200))
def test_any_bytes_as_an_envelope(raw):
    fate(raw, bodies.Target("v1", "Pod"))
    fate(PREFIX + raw, bodies.Target("v1", "Pod"))


@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
)
@settings(max_examples=examples(80))
def test_kubectls_bodies_with_bytes_changed_and_cut(typed, changes, end):
    body = bytearray(BODIES[typed])
    whole = decode(bytes(body))
    for place, byte in changes:
        body[place % len(body)] = byte
    fate(bytes(body[: max(len(body) - end % 40, 0)]), bodies.Target(whole["apiVersion"], whole["kind"]))


def test_kubectls_bodies_as_they_are():
    for body in BODIES.values():
        whole = decode(body)
        assert fate(body, bodies.Target(whole["apiVersion"], whole["kind"])) == "read"
        assert fate(body[:-1], bodies.Target(whole["apiVersion"], whole["kind"])) == "refused"
