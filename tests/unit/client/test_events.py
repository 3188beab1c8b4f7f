"""Recorded events: their form, counting, combining and thinning out."""

from __future__ import annotations

import asyncio

from support.client_fake import FakeApi
from support.client_objects import pod

from controlplane import errors
from controlplane.client.events import NORMAL, WARNING, EventRecorder
from controlplane.resources.catalog import EVENT, NODE, POD


async def test_form() -> None:
    api = FakeApi()
    stored = await api.client().create(POD, pod("web"))
    recorder = EventRecorder(api.client(), "kubelet", "node1")
    recorder.event(POD, stored, WARNING, "BackOff", "Back-off restarting", "spec.containers{web}")
    await recorder.flush()
    [event] = api.all(EVENT, "default")
    assert event["involvedObject"] == {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "default",
        "name": "web",
        "uid": stored["metadata"]["uid"],
        "resourceVersion": stored["metadata"]["resourceVersion"],
        "fieldPath": "spec.containers{web}",
    }
    assert event["metadata"]["name"].startswith("web.")
    assert (event["type"], event["reason"], event["count"]) == ("Warning", "BackOff", 1)
    assert event["source"] == {"component": "kubelet", "host": "node1"}
    assert event["firstTimestamp"] == event["lastTimestamp"]


async def test_equal_events_are_counted_also_when_the_object_changed() -> None:
    api = FakeApi()
    stored = await api.client().create(POD, pod("web"))
    recorder = EventRecorder(api.client(), "kubelet")
    for revision in range(3):
        changed = {**stored, "metadata": {**stored["metadata"], "resourceVersion": str(revision)}}
        recorder.event(POD, changed, NORMAL, "Pulled", "image present")
    await recorder.flush()
    [event] = api.all(EVENT)
    assert event["count"] == 3
    api.remove(EVENT, event["metadata"]["name"], "default")
    recorder.event(POD, stored, NORMAL, "Pulled", "image present")
    await recorder.flush()
    assert [each["count"] for each in api.all(EVENT)] == [1]


async def test_cluster_scoped_objects_have_their_events_in_default() -> None:
    api = FakeApi()
    recorder = EventRecorder(api.client(), "node-controller")
    recorder.event(NODE, {"metadata": {"name": "node1", "uid": "u"}}, NORMAL, "NodeReady", "ready")
    await recorder.flush()
    [event] = api.all(EVENT)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["involvedObject"]


async def test_many_similar_ones_are_combined_and_floods_cut() -> None:
    api = FakeApi()
    stored = await api.client().create(POD, pod("web"))
    recorder = EventRecorder(api.client(), "test")
    for number in range(40):
        recorder.event(POD, stored, WARNING, "Failed", f"failure {number}")
    await recorder.flush()
    found = api.all(EVENT)
    combined = [event for event in found if event["message"].startswith("(combined from similar events): ")]
    assert len(found) == 11
    assert len(combined) == 1
    assert combined[0]["count"] == 15
    assert combined[0]["message"].endswith("failure 24")


async def test_a_refused_event_is_dropped_and_the_next_one_goes_on() -> None:
    api = FakeApi()
    stored = await api.client().create(POD, pod("web"))
    api.reject.append(
        lambda method, path, body: errors.Forbidden("closing") if body and body.get("reason") == "A" else None
    )
    recorder = EventRecorder(api.client(), "test")
    recorder.event(POD, stored, NORMAL, "A", "a")
    recorder.event(POD, stored, NORMAL, "B", "b")
    await recorder.flush()
    assert [event["reason"] for event in api.all(EVENT)] == ["B"]


async def test_waits_for_a_server_that_is_away() -> None:
    api = FakeApi()
    stored = await api.client().create(POD, pod("web"))
    api.down = True
    recorder = EventRecorder(api.client(), "test")
    recorder.event(POD, stored, NORMAL, "A", "a")
    flushed = asyncio.ensure_future(recorder.flush())
    await asyncio.sleep(0)
    assert not flushed.done()
    api.down = False
    await asyncio.wait_for(flushed, 5)
    assert len(api.all(EVENT)) == 1
