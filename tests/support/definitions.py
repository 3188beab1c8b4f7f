"""Making CustomResourceDefinitions on a test's server, and waiting for their conditions."""

from __future__ import annotations

import json
from typing import Any

from support.apiserver import Served
from support.custom import CRDS

from controlplane.meta import conditions


async def wait_for(api: Served, name: str, type_: str, status: str = "True") -> Any:
    """The definition, once it has the condition."""
    query = f"{CRDS}?watch=true&fieldSelector=metadata.name={name}&timeoutSeconds=20"
    async with api.session.get(api.url + query) as answer:
        async for line in answer.content:
            event = json.loads(line)
            if conditions.status_of(event["object"], type_) == status:
                return event["object"]
    raise AssertionError(f"{name} never was {type_}={status}")


async def made(api: Served, wanted: dict[str, Any]) -> Any:
    """The definition, established."""
    await api.json("POST", CRDS, 201, json=wanted)
    return await wait_for(api, wanted["metadata"]["name"], "Established")
