"""core/v1 and events.k8s.io/v1 Events: one store, two forms, two strictnesses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support.apiserver import Served

CORE = "/api/v1/namespaces/default/events"
NEWER = "/apis/events.k8s.io/v1/namespaces/default/events"
TIME = "2026-01-02T03:04:05.000006Z"


def newer(name: str, **rest: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name}, "eventTime": TIME, "type": "Normal", "reason": "Started", "action": "Starting",
        "note": "It has begun", "reportingController": "example.com/c", "reportingInstance": "c-1",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, **rest,
    }  # fmt: skip


async def test_each_form_of_what_the_other_wrote(api: Served) -> None:
    old = {
        "metadata": {"name": "old"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "source": {"component": "kubelet"}, "message": "Pulled it", "count": 2,
        "firstTimestamp": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    await api.json("POST", CORE, 201, json=old)
    made = await api.json("POST", NEWER, 201, json=newer("new"))
    assert (made["apiVersion"], made["note"], made["deprecatedSource"]) == (
        "events.k8s.io/v1",
        "It has begun",
        {},
    )
    seen = await api.json("GET", f"{NEWER}/old")
    assert seen["regarding"]["name"] == "p"
    assert (seen["note"], seen["deprecatedCount"], seen["deprecatedSource"]) == (
        "Pulled it",
        2,
        {"component": "kubelet"},
    )
    seen = await api.json("GET", f"{CORE}/new")
    assert (seen["apiVersion"], seen["message"], seen["reportingComponent"]) == (
        "v1",
        "It has begun",
        "example.com/c",
    )
    listed = await api.json("GET", NEWER)
    assert (listed["kind"], listed["apiVersion"]) == ("EventList", "events.k8s.io/v1")
    assert [each["metadata"]["name"] for each in listed["items"]] == ["new", "old"]
    found = await api.json("GET", f"{NEWER}?fieldSelector=reportingController=example.com/c,regarding.name=p")
    assert [each["metadata"]["name"] for each in found["items"]] == ["new"]
    found = await api.json(
        "GET", f"{CORE}?fieldSelector=reportingComponent=example.com/c,involvedObject.name=p"
    )
    assert [each["metadata"]["name"] for each in found["items"]] == ["new"]
    await api.json("DELETE", f"{NEWER}/old")
    await api.json("GET", f"{CORE}/old", 404)


async def test_the_newer_api_is_strict(api: Served) -> None:
    loose = newer("a", type="Odd", deprecatedCount=1, deprecatedSource={"host": "h"}, series={"count": 1})
    del loose["eventTime"], loose["action"]
    refused = await api.json("POST", NEWER, 422, json=loose)
    assert [f"{cause['field']}: {cause['message']}" for cause in refused["details"]["causes"]] == [
        'series.count: Invalid value: "": should be at least 2',
        "series.lastObservedTime: Required value",
        "eventTime: Required value",
        'type: Invalid value: "": has invalid value: Odd',
        'count: Invalid value: "": needs to be unset',
        'source: Invalid value: "": needs to be unset',
    ]


async def test_only_the_series_of_a_newer_event_changes(api: Served) -> None:
    made = await api.json("POST", NEWER, 201, json=newer("a"))
    made["series"] = {"count": 2, "lastObservedTime": TIME}
    made = await api.json("PUT", f"{NEWER}/a", json=made)
    refused = await api.json("PUT", f"{NEWER}/a", 422, json={**made, "note": "Other", "reason": "More"})
    assert [cause["field"] for cause in refused["details"]["causes"]] == ["reason", "message"]
    core = await api.json("GET", f"{CORE}/a")
    assert (await api.json("PUT", f"{CORE}/a", json={**core, "message": "Other"}))["message"] == "Other"


async def test_a_table(api: Served) -> None:
    await api.json("POST", NEWER, 201, json=newer("a"))
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    one, other = await api.json("GET", CORE, headers=accept), await api.json("GET", NEWER, headers=accept)
    assert one["columnDefinitions"] == other["columnDefinitions"]
    assert one["rows"][0]["cells"][1:7] == other["rows"][0]["cells"][1:7]


async def test_watches_see_their_own_form(api: Served) -> None:
    async with (
        api.session.get(f"{api.url}{CORE}?watch=true&timeoutSeconds=20") as one,
        api.session.get(f"{api.url}{NEWER}?watch=true&timeoutSeconds=20") as other,
    ):
        await api.json("POST", NEWER, 201, json=newer("a"))
        seen = [json.loads(await asyncio.wait_for(each.content.readline(), 10)) for each in (one, other)]
    assert [event["object"]["apiVersion"] for event in seen] == ["v1", "events.k8s.io/v1"]
    assert [event["object"].get("message") for event in seen] == ["It has begun", None]
    assert [event["object"].get("note") for event in seen] == [None, "It has begun"]
