"""get and list of ComponentStatus: asks the parts of the control plane each time. Called by the core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson

from controlplane.apiserver.answers import listing, single
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse
from controlplane.apiserver.options import list_options
from controlplane.apiserver.registry.requests import ListResult
from controlplane.errors import not_found
from controlplane.resources.core.component_status import DEPRECATED, component
from controlplane.store.events import Stored

Check = Callable[[], Awaitable[str]]
"""Empty text = well, else what is wrong."""


class ComponentStatuses:
    """`checks` by the component's name."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(sorted(checks.items()))

    async def get(self, call: Call) -> ApiResponse:
        wanted = call.wants()
        call.warnings.append(DEPRECATED)
        if call.name not in self._checks:
            raise not_found(call.kind.plural, call.kind.group, call.name)
        return call.warned(single(call.kind, await self._ask(call.name), wanted, call.include))

    async def list(self, call: Call) -> ApiResponse:
        wanted = call.wants(lists=True)
        call.warnings.append(DEPRECATED)
        options = list_options(call.query, call.kind)
        found = [await self._ask(name) for name in self._checks]
        items = [stored for stored in found if options.predicate is None or options.predicate(stored.object)]
        return call.warned(listing(call.kind, ListResult(items, 0), wanted, call.include))

    async def _ask(self, name: str) -> Stored:
        status = component(name, await self._checks[name]())
        return Stored(status, orjson.dumps(status), 0)
