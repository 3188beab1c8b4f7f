"""Says of each FlowSchema whether the priority level it names exists: the condition Dangling of its status.

Started by `server.py`. Decides nothing about requests: schemas without a level are left out there anyway.
"""

from __future__ import annotations

from functools import partial

from controlplane.apiserver.registry import LOOPBACK_USER, Registry, WriteOptions
from controlplane.apiserver.registry.following import Following
from controlplane.errors import Conflict, NotFound, Object
from controlplane.meta import conditions
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import now
from controlplane.resources.catalog import FLOW_SCHEMA, PRIORITY_LEVEL
from controlplane.resources.flowcontrol.flow_schema import DANGLING

_WRITE = WriteOptions(field_manager="api-priority-and-fairness-config-consumer-v1", user=LOOPBACK_USER)


def dangling_condition(level: str, *, exists: bool, moment: str) -> Object:
    """`moment` in RFC 3339."""
    said = "it exists" if exists else "there is no such object"
    joint = "and" if exists else "but"
    return {
        "type": DANGLING,
        "status": "False" if exists else "True",
        "lastTransitionTime": moment,
        "reason": "Found" if exists else "NotFound",
        "message": f"This FlowSchema references the PriorityLevelConfiguration object named {_quoted(level)} "
        f"{joint} {said}",
    }


def _quoted(text: str) -> str:
    return f'"{text}"'


class DanglingSchemas:
    """See the module."""

    def __init__(self, registry: Registry, following: Following) -> None:
        self._registry = registry
        following.follow(FLOW_SCHEMA, self._schema_changed)
        following.follow(PRIORITY_LEVEL, self._level_changed)

    async def _schema_changed(self, schema: Object, gone: bool) -> None:
        if not gone:
            await self._tell(schema)

    async def _level_changed(self, level: Object, gone: bool) -> None:
        schemas = await self._registry.cache(FLOW_SCHEMA)
        for schema in [stored.object for _, stored in schemas.scan()]:
            if _level_of(schema) == name(level):
                await self._tell(schema)

    async def _tell(self, schema: Object) -> None:
        levels = await self._registry.cache(PRIORITY_LEVEL)
        level = _level_of(schema)
        wanted = dangling_condition(level, exists=levels.get("", level) is not None, moment=now())
        present = conditions.of(schema, DANGLING) or {}
        if all(present.get(key) == wanted[key] for key in ("status", "reason", "message")):
            return
        status = {**(schema.get("status") or {})}
        status["conditions"] = conditions.with_condition(status.get("conditions"), wanted)
        write = partial(self._registry.update, FLOW_SCHEMA, "", name(schema))
        try:
            await write({**schema, "status": status}, _WRITE, "status")
        except (Conflict, NotFound):
            return  # another state of it will be told


def _level_of(schema: Object) -> str:
    return str(dig(schema, "spec", "priorityLevelConfiguration", "name", default=""))
