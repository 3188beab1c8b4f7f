"""Webhook configurations as they are used: parsed once, indexed by what is asked, called with all that can go wrong.

Shared by the two plug-ins, which differ in what they do with the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from controlplane.apiserver.admission.evaluation import (
    AuthorizerSeat,
    evaluation_for,
    failed_condition,
)
from controlplane.apiserver.admission.matching import (
    Question,
    Rule,
    Selectors,
    is_exempt,
    matching_kind,
)
from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.admission.review import (
    InvalidReview,
    Response,
    parse_response,
    review,
    review_version,
)
from controlplane.apiserver.admission.webhooks.refusals import denial, internal, unsupported_dry_run
from controlplane.apiserver.registry.scaling import scale_of
from controlplane.apiserver.webhook_client import WebhookClient, WebhookError
from controlplane.cel import CelCompileError, Program
from controlplane.errors import Object
from controlplane.resources.admissionregistration.expressions import Compiler, compile_conditions
from controlplane.resources.kind import Kind

log = logging.getLogger(__name__)

GROUP = "admissionregistration.k8s.io"
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook of a configuration. `uid` tells it from others of its name."""

    name: str
    configuration: str
    uid: str
    source: Object
    rules: tuple[Rule, ...]
    selectors: Selectors

    @property
    def equivalent(self) -> bool:
        return bool(self.source.get("matchPolicy") != "Exact")

    @property
    def ignores_failures(self) -> bool:
        return bool(self.source.get("failurePolicy") == "Ignore")

    @property
    def is_reinvocable(self) -> bool:
        return bool(self.source.get("reinvocationPolicy") == "IfNeeded")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A webhook that is to be asked, and the version of the resource it is asked in."""

    index: int
    webhook: Webhook
    kind: Kind


@dataclass(slots=True)
class Configurations:
    """All configurations of one sort. What few questions there are is answered from memory."""

    kinds: Iterable[Kind]
    _edition: tuple[tuple[str, str], ...] = ()
    _webhooks: tuple[Webhook, ...] = ()
    _remembered: dict[tuple[object, ...], tuple[Invocation, ...]] = field(default_factory=dict)
    _served: int = -1
    _conditions: dict[tuple[str, str], list[tuple[str, Program]]] = field(default_factory=dict)

    def relevant(self, objects: Sequence[Object], request: AdmissionRequest) -> Sequence[Invocation]:
        """The webhooks whose rules match, in order of configuration names; selectors and conditions aside."""
        if is_exempt(request.kind):
            return ()
        self._refresh(objects)
        question = Question.of(request)
        found = self._remembered.get(question.key)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[question.key] = tuple(self._search(question))
        return found

    def _search(self, question: Question) -> Iterable[Invocation]:
        for index, webhook in enumerate(self._webhooks):
            match = matching_kind(webhook.rules, question, self.kinds, equivalent=webhook.equivalent)
            if match is not None:
                yield Invocation(index, webhook, match[0])

    def _refresh(self, objects: Sequence[Object]) -> None:
        edition = tuple((obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]) for obj in objects)
        served = getattr(self.kinds, "edition", 0)
        if edition == self._edition and served == self._served:
            return
        self._edition, self._served = edition, served
        self._remembered.clear()
        self._conditions.clear()
        ordered = sorted(objects, key=lambda obj: str(obj["metadata"]["name"]))
        self._webhooks = tuple(webhook for obj in ordered for webhook in _parse(obj))

    def conditions(self, webhook: Webhook) -> list[tuple[str, Program]]:
        """Its compiled matchConditions. Raises CelCompileError."""
        key = (webhook.configuration, webhook.uid)
        if key not in self._conditions:
            sources = webhook.source.get("matchConditions") or ()
            self._conditions[key] = compile_conditions(sources, Compiler())
        return self._conditions[key]


def _parse(configuration: Object) -> Iterable[Webhook]:
    name = str(configuration["metadata"]["name"])
    seen: dict[str, int] = {}
    for source in configuration.get("webhooks") or ():
        title = str(source["name"])
        number = seen[title] = seen.get(title, -1) + 1
        yield Webhook(
            title,
            name,
            f"{name}/{title}/{number}",
            source,
            tuple(Rule.parse(rule) for rule in source.get("rules") or ()),
            Selectors.parse(source),
        )


def seen_request(request: AdmissionRequest) -> AdmissionRequest:
    """The request with the object webhooks are shown: a Scale for the scale subresource."""
    if request.subresource != "scale" or request.kind.scale is None:
        return request
    return replace(
        request,
        obj=None if request.obj is None else scale_of(request.kind, request.obj),
        old=None if request.old is None else scale_of(request.kind, request.old),
        body_kind=("autoscaling", "v1", "Scale"),
    )


async def converted(obj: Object | None, source: Kind, target: Kind) -> Object | None:
    """`obj` of one served version in another one of the same resource. Raises what conversion raises."""
    if obj is None or source is target:
        return obj
    stored = obj if source.convert is None else await source.convert.write(obj)
    if target.convert is None:
        return stored
    (result,) = await target.convert.read([stored])
    return result


@dataclass(frozen=True, slots=True)
class Caller:
    """Asks webhooks on behalf of a plug-in."""

    client: WebhookClient
    seat: AuthorizerSeat
    configurations: Configurations
    mutating: bool

    async def wants(
        self, invocation: Invocation, request: AdmissionRequest, obj: Object | None, old: Object | None
    ) -> bool:
        """Whether selectors and match conditions let the request through to the webhook. Raises Forbidden."""
        webhook = invocation.webhook
        if not await webhook.selectors.match(request):
            return False
        if not webhook.source.get("matchConditions"):
            return True
        try:
            conditions = self.configurations.conditions(webhook)
        except CelCompileError as fault:
            errors, is_false = [str(fault)], False
        else:
            evaluation = evaluation_for(self.seat, request, invocation.kind, obj, old)
            is_false, errors = await failed_condition(conditions, evaluation)
        if is_false or (errors and webhook.ignores_failures):
            return False
        if errors:
            raise request.forbid(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
        return True

    async def ask(
        self, invocation: Invocation, request: AdmissionRequest, obj: Object | None, old: Object | None
    ) -> Response | None:
        """The webhook's consent, its warnings and annotations noted; None when it failed and may.

        Raises what the client is told: the webhook's refusal, or an InternalError about the webhook.
        """
        webhook = invocation.webhook
        if request.dry_run and webhook.source.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise unsupported_dry_run(webhook.name)
        try:
            response = await self._call(invocation, request, obj, old)
        except (WebhookError, InvalidReview) as fault:
            if not webhook.ignores_failures:
                log.warning("webhook %s: failing closed: %s", webhook.name, fault)
                raise internal(f'failed calling webhook "{webhook.name}": {fault}') from fault
            log.warning("webhook %s: failing open: %s", webhook.name, fault)
            sort = "mutation" if self.mutating else "validating"
            request.remarks.annotations[
                f"failed-open.{sort}.webhook.admission.k8s.io/"
                f"round_{request.reinvocation.round}_index_{invocation.index}"
            ] = webhook.name
            return None
        for key, value in response.annotations.items():
            request.remarks.annotations[f"{webhook.name}/{key}"] = value
        request.remarks.warnings.extend(_clean(text) for text in response.warnings if _clean(text))
        if not response.allowed:
            raise denial(webhook.name, response.status)
        return response

    async def _call(
        self, invocation: Invocation, request: AdmissionRequest, obj: Object | None, old: Object | None
    ) -> Response:
        source = invocation.webhook.source
        version = review_version(list(source.get("admissionReviewVersions") or ()))
        if not version:
            raise WebhookError(
                "could not create admission objects: webhook does not accept known AdmissionReview versions"
            )
        uid, body = review(request, invocation.kind, version, obj, old)
        seconds = int(source.get("timeoutSeconds") or 10)
        try:
            answer = await self.client.post(source.get("clientConfig") or {}, body, seconds)
        except WebhookError as fault:
            raise WebhookError(f"failed to call webhook: {fault}") from fault
        try:
            return parse_response(answer, uid, version, mutating=self.mutating)
        except InvalidReview as fault:
            raise InvalidReview(f"received invalid webhook response: {fault}") from fault


def _clean(text: str) -> str:
    """A warning as one line of visible characters."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
