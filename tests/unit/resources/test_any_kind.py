"""Every kind, with objects made from its own schema: defaults are idempotent, a PUT of the same is no change, nothing
raises, nothing is edited that must not be.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.properties import examples

from controlplane.meta.objects import clone
from controlplane.resources.catalog import KINDS
from controlplane.resources.versions import gather
from controlplane.schema import definitions
from controlplane.schema.definitions import Form, SchemaType

NOW = datetime(2026, 1, 2, tzinfo=UTC)
STAMP = "2026-01-01T00:00:00Z"
DEPTH = 5
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "web",
        "Bad Name",
        "x/y",
        "10.0.0.1",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "::1",
        "fd00::/64",
        "*.a.b",
        "/p",
        "*",
    ]
)
FORMS = {
    Form.STRING: TEXTS,
    Form.INT32: st.integers(-1, 70000),
    Form.INT64: st.integers(-1, 70000),
    Form.FLOAT: st.just(1.5),
    Form.BOOL: st.booleans(),
    Form.BYTES: st.sampled_from(["", "YQ=="]),
    Form.QUANTITY: st.sampled_from(["1", "1000m", "0", "-1", "1Gi"]),
    Form.INT_OR_STRING: st.sampled_from([0, 80, "50%", "http"]),
    Form.TIME: st.just(STAMP),
    Form.MICRO_TIME: st.just("2026-01-01T00:00:00.000000Z"),
    Form.RAW: st.just({}),
}


@cache
def values(type_: SchemaType, depth: int) -> st.SearchStrategy[Any]:
    """Values of a type, with few fields each so that they stay small."""
    if type_.form in FORMS:
        return FORMS[type_.form]
    if depth == 0:
        return st.just([] if type_.form is Form.LIST else {})
    if type_.form is Form.LIST:
        assert type_.element is not None
        return st.lists(values(type_.element, depth - 1), max_size=2)
    if type_.form is Form.MAP:
        assert type_.element is not None
        return st.dictionaries(TEXTS, values(type_.element, depth - 1), max_size=2)
    fields = {
        name: st.deferred(lambda f=field: values(f.type, depth - 1)) for name, field in type_.fields.items()
    }
    return st.sets(st.sampled_from(sorted(fields)), max_size=4).flatmap(
        lambda chosen: st.fixed_dictionaries({name: fields[name] for name in chosen})
    )


def objects(kind: Any) -> st.SearchStrategy[Any]:
    type_ = definitions.type_for(kind.api_version, kind.kind)
    assert type_ is not None
    parts = {
        name: values(field.type, DEPTH)
        for name, field in type_.fields.items()
        if name not in ("apiVersion", "kind", "metadata")
    }
    metadata = st.just({"name": "x", "namespace": "default", "creationTimestamp": STAMP})
    return st.fixed_dictionaries({"metadata": metadata}, optional=parts)


STORED = [kind for kind in gather(KINDS) if "create" in kind.verbs or kind.group == ""]


@pytest.mark.parametrize("kind", STORED, ids=lambda kind: f"{kind.group}/{kind.plural}")
@settings(max_examples=examples(8), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_object_of_any_kind(kind: Any, data: st.DataObject) -> None:
    obj = data.draw(objects(kind))
    kind.default(obj)
    once = clone(obj)
    kind.default(obj)
    assert obj == once

    kind.validate_create(obj)
    for cause in kind.validate(obj):
        assert cause.reason
        assert cause.message
    assert obj == once
    assert kind.row is not None
    assert len(kind.row(obj, NOW)) == len(kind.columns)
    assert obj == once

    kind.prepare_create(obj)
    again = clone(obj)
    kind.prepare_update(again, obj)
    assert again == obj
    assert list(kind.validate_update(again, obj)) == []
