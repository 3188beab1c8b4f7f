"""Statuses of pods beside another writer: what he took away while we wrote something else is written again."""

from __future__ import annotations

from typing import Any

from support.client_fake import FakeApi

from controlplane.resources.catalog import POD
from netkit.node.status_writer import StatusWriter


def ready(status: str) -> dict[str, Any]:
    return {"type": "Ready", "status": status}


async def test_a_condition_changed_just_before_our_write_is_written_again() -> None:
    api = FakeApi()
    client = api.client()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"}}
    await client.create(POD, pod, "default")
    standing = {"phase": "Running", "conditions": [ready("True")]}
    api.edit(POD, "web", "default", lambda found: found.update(status=standing))
    known = await client.get(POD, "web", "default")
    writer = StatusWriter(client, known)
    # The node controller was here, and nobody has told us yet.
    api.edit(POD, "web", "default", lambda found: found["status"].update(conditions=[ready("False")]))
    wanted = {"phase": "Running", "podIP": "10.244.0.2", "conditions": [ready("True")]}
    assert await writer.write(wanted)
    told = await client.get(POD, "web", "default")
    writer.base(told)
    assert await writer.write(wanted)
    stored = await client.get(POD, "web", "default")
    assert stored["status"]["conditions"] == [ready("True")]
    assert stored["status"]["podIP"] == "10.244.0.2"
