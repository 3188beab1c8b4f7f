from dataclasses import replace
from datetime import UTC, datetime

from controlplane.resources.catalog import EVENT, NAMESPACE, POD
from controlplane.resources.table import table

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
LAB = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "lab", "uid": "1", "creationTimestamp": "2026-01-02T11:00:00Z"},
    "status": {"phase": "Active"},
}


def test_a_list():
    result = table(NAMESPACE, [LAB], NOW, resource_version="7", continue_token="next", remaining=3)
    assert (result["kind"], result["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert result["metadata"] == {"resourceVersion": "7", "continue": "next", "remainingItemCount": 3}
    definitions = result["columnDefinitions"]
    assert [column["name"] for column in definitions] == ["Name", "Status", "Age"]
    assert definitions[0]["format"] == "name"
    assert all(set(column) == {"name", "type", "format", "description", "priority"} for column in definitions)
    assert result["rows"] == [
        {
            "cells": ["lab", "Active", "60m"],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": LAB["metadata"],
            },
        }
    ]


def test_what_rows_include():
    assert table(NAMESPACE, [LAB], NOW, "Object")["rows"][0]["object"] is LAB
    assert table(NAMESPACE, [LAB], NOW, "None")["rows"][0]["object"] is None
    assert table(NAMESPACE, [LAB], NOW, "")["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_an_empty_list():
    result = table(NAMESPACE, [], NOW)
    assert (result["rows"], result["metadata"]) == ([], {})


def test_columns_can_be_left_out():
    assert table(NAMESPACE, [LAB], NOW, with_columns=False)["columnDefinitions"] is None


def test_finished_pods():
    pod = {"metadata": {"name": "x"}, "spec": {}, "status": {"phase": "Failed"}}
    (row,) = table(POD, [pod], NOW)["rows"]
    assert row["conditions"][0]["type"] == "Completed"


def test_the_wide_columns_have_a_priority():
    definitions = {column["name"]: column["priority"] for column in table(POD, [], NOW)["columnDefinitions"]}
    assert definitions == {
        "Name": 0, "Ready": 0, "Status": 0, "Restarts": 0, "Age": 0,
        "IP": 1, "Node": 1, "Nominated Node": 1, "Readiness Gates": 1,
    }  # fmt: skip


def test_events_print_their_name_last():
    names = [column["name"] for column in table(EVENT, [], NOW)["columnDefinitions"]]
    assert names == [
        "Last Seen", "Type", "Reason", "Object", "Subobject", "Source", "Message", "First Seen", "Count", "Name",
    ]  # fmt: skip


def test_a_kind_without_a_printer():
    plain = replace(NAMESPACE, columns=(), row=None)
    result = table(plain, [LAB], NOW)
    assert [column["name"] for column in result["columnDefinitions"]] == ["Name", "Created At"]
    assert result["rows"][0]["cells"] == ["lab", "2026-01-02T11:00:00Z"]
