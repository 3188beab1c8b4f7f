"""ValidatingAdmissionWebhook: asks all webhooks that are concerned at the same time; one no is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.admission.webhooks.hooks import (
    GROUP,
    Caller,
    Configurations,
    Invocation,
    converted,
    seen_request,
)
from controlplane.apiserver.webhook_client import WebhookClient
from controlplane.errors import Object, StatusError
from controlplane.resources.kind import Kind


class ValidatingAdmissionWebhook:
    """See `plugin.ValidatingPlugin`. `kinds` are all served kinds, whatever they are at the time."""

    def __init__(self, client: WebhookClient, seat: AuthorizerSeat, kinds: Iterable[Kind]) -> None:
        self._configurations = Configurations(kinds)
        self._caller = Caller(client, seat, self._configurations, mutating=False)

    async def validate(self, request: AdmissionRequest) -> None:
        objects = await request.listing(GROUP, "validatingwebhookconfigurations", "")
        if not objects:
            return
        invocations = self._configurations.relevant(objects, request)
        if not invocations:
            return
        shown = seen_request(request)
        wanted: list[tuple[Invocation, Object | None, Object | None]] = []
        for invocation in invocations:
            target = request.kind if shown.body_kind else invocation.kind
            obj = await converted(shown.obj, request.kind, target)
            old = await converted(shown.old, request.kind, target)
            if await self._caller.wants(invocation, shown, obj, old):
                wanted.append((invocation, obj, old))
        answers = await asyncio.gather(
            *(self._caller.ask(invocation, shown, obj, old) for invocation, obj, old in wanted),
            return_exceptions=True,
        )
        faults = [answer for answer in answers if isinstance(answer, BaseException)]
        # A fault of the server's own before a webhook's word, so that it is not hidden.
        for fault in sorted(faults, key=lambda fault: isinstance(fault, StatusError)):
            raise fault
