"""Queries and DeleteOptions as clients write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.apiserver.options import (
    Query,
    delete_options,
    field_validation,
    list_options,
    watch_options,
    write_options,
)
from controlplane.apiserver.registry import Propagation, VersionMatch
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Invalid
from controlplane.resources.catalog import NODE, POD

USER = UserInfo("u")


def query(**pairs: str) -> Query:
    return Query(tuple(pairs.items()))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("1", True),
        ("True", True),
        ("", True),
        ("false", False),
        ("0", False),
        ("False", False),
    ],
)
def test_booleans_as_every_client_writes_them(text: str, value: bool) -> None:
    assert query(watch=text).flag("watch") is value


def test_what_is_absent() -> None:
    empty = Query(())
    assert not empty.flag("watch")
    assert empty.integer("limit") is None
    assert empty.text("x") == ""
    assert list(empty.all("x")) == []


def test_repeated_names_keep_their_order() -> None:
    found = Query((("command", "sh"), ("command", "-c"), ("x", "y")))
    assert list(found.all("command")) == ["sh", "-c"]


def test_the_field_manager_defaults_to_the_agent() -> None:
    assert write_options(Query(()), USER, "kubectl/v1.32 (linux)").field_manager == "kubectl"
    assert write_options(query(fieldManager="me"), USER, "kubectl/v1").field_manager == "me"
    with pytest.raises(Invalid, match="fieldManager: Too long"):
        write_options(query(fieldManager="x" * 129), USER)


def test_dry_run_is_all_or_nothing() -> None:
    assert write_options(query(dryRun="All"), USER).dry_run
    assert not write_options(Query(()), USER).dry_run
    with pytest.raises(Invalid, match=r'Unsupported value: \[\]string\{"all"\}'):
        write_options(query(dryRun="all"), USER)


def test_field_validation_warns_by_default() -> None:
    assert field_validation(Query(())) == "Warn"
    assert field_validation(query(fieldValidation="Ignore")) == "Ignore"


def test_list_options() -> None:
    options = list_options(
        query(limit="5", resourceVersion="7", resourceVersionMatch="Exact", **{"continue": "t"}), POD
    )
    assert (options.limit, options.resource_version, options.match) == (5, "7", VersionMatch.EXACT)
    assert (options.continue_token, options.predicate) == ("t", None)
    with pytest.raises(Invalid):
        list_options(query(sendInitialEvents="true"), POD)


def test_a_watch_without_timeout_ends_some_time_within_the_hour() -> None:
    found = {watch_options(Query(()), POD).timeout_seconds for _ in range(20)}
    assert len(found) > 1
    assert all(1800 <= seconds <= 3600 for seconds in found)
    assert watch_options(query(timeoutSeconds="9"), POD).timeout_seconds == 9


def test_a_name_in_the_selector_narrows_the_watch() -> None:
    assert watch_options(query(fieldSelector="metadata.name=a,status.phase!=Failed"), POD).name == "a"
    assert watch_options(query(fieldSelector="metadata.name!=a"), POD).name == ""
    assert watch_options(Query(()), POD, "b").name == "b"


def pod(**spec: str) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}}, "spec": spec, "status": {}}


@pytest.mark.parametrize(
    ("labels", "fields", "matches"),
    [
        ("a=b", "", True),
        ("a!=b", "", False),
        ("", "spec.nodeName=n1", True),
        ("", "spec.nodeName==n1,metadata.namespace=d", True),
        ("", "spec.nodeName!=n1", False),
        ("a", "spec.nodeName=n2", False),
    ],
)
def test_selectors(labels: str, fields: str, matches: bool) -> None:
    predicate = list_options(query(labelSelector=labels, fieldSelector=fields), POD).predicate
    assert predicate is not None
    assert predicate(pod(nodeName="n1")) is matches


def test_cluster_scoped_kinds_have_no_namespace_to_select_by() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: metadata\.namespace"):
        list_options(query(fieldSelector="metadata.namespace=d"), NODE)


def test_delete_options_from_a_body() -> None:
    body = {
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u", "resourceVersion": "5"},
        "dryRun": ["All"],
    }
    options = delete_options(Query(()), body, USER)
    assert (options.grace_seconds, options.propagation) == (0, Propagation.FOREGROUND)
    assert (options.uid, options.resource_version, options.dry_run) == ("u", "5", True)


def test_delete_options_from_the_query() -> None:
    options = delete_options(query(gracePeriodSeconds="3", propagationPolicy="Orphan"), None, USER)
    assert (options.grace_seconds, options.propagation) == (3, Propagation.ORPHAN)
    assert delete_options(query(orphanDependents="true"), None, USER).propagation is Propagation.ORPHAN


@pytest.mark.parametrize(
    "body", [[], "x", {"gracePeriodSeconds": "5"}, {"preconditions": 1}, {"dryRun": "All"}]
)
def test_delete_bodies_of_the_wrong_type(body: object) -> None:
    with pytest.raises(BadRequest):
        delete_options(Query(()), body, USER)


def test_two_ways_to_say_what_becomes_of_children() -> None:
    with pytest.raises(Invalid, match="cannot be both set"):
        delete_options(Query(()), {"orphanDependents": True, "propagationPolicy": "Orphan"}, USER)


@given(st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.text(max_size=5))))
def test_no_delete_body_is_a_fault_of_ours(body: dict[str, Any]) -> None:
    try:
        delete_options(Query(()), body, USER)
    except (BadRequest, Invalid):
        return
