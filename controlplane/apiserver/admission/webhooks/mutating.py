"""MutatingAdmissionWebhook: asks webhooks one after another, each shown what the one before made of the object."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from controlplane.apiserver.admission.evaluation import AuthorizerSeat
from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.review import Response
from controlplane.apiserver.admission.webhooks.hooks import (
    GROUP,
    Caller,
    Configurations,
    Invocation,
    converted,
    seen_request,
)
from controlplane.apiserver.admission.webhooks.refusals import internal
from controlplane.apiserver.registry.scaling import scaled
from controlplane.apiserver.webhook_client import WebhookClient
from controlplane.errors import BadRequest, Object, StatusError
from controlplane.meta.patch.json_patch import apply_json_patch
from controlplane.resources.kind import Kind
from controlplane.schema import strict

_NOTES = "MutatingAdmissionWebhook"
_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "managedFields",
)
"""Of metadata: webhooks may write here what they like, it does not count."""
_NOT_YET_SET = ("uid", "generation")
"""What an object about to be created does not have when mutating webhooks see it."""
_SUFFIX = 5


@dataclass(slots=True)
class _Rounds:
    """Which webhooks are to be asked again: those with `IfNeeded` that somebody changed the object after."""

    asked: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    last: bytes = b""

    def somebody_changed(self) -> None:
        self.again |= self.asked
        self.asked.clear()


class MutatingAdmissionWebhook:
    """See `plugin.AdmissionPlugin`. `kinds` are all served kinds, whatever they are at the time."""

    def __init__(self, client: WebhookClient, seat: AuthorizerSeat, kinds: Iterable[Kind]) -> None:
        self._configurations = Configurations(kinds)
        self._caller = Caller(client, seat, self._configurations, mutating=True)

    async def admit(self, request: AdmissionRequest) -> None:
        objects = await request.listing(GROUP, "mutatingwebhookconfigurations", "")
        if not objects:
            return
        invocations = self._configurations.relevant(objects, request)
        if not invocations:
            return
        rounds = request.reinvocation.notes.setdefault(_NOTES, _Rounds())
        assert isinstance(rounds, _Rounds)
        if request.reinvocation.round and rounds.last != _encoded(request.obj):
            rounds.somebody_changed()
        for invocation in invocations:
            if request.reinvocation.round and invocation.webhook.uid not in rounds.again:
                continue
            await self._invoke(invocation, request, rounds)
        rounds.last = _encoded(request.obj)

    async def _invoke(self, invocation: Invocation, request: AdmissionRequest, rounds: _Rounds) -> None:
        shown = seen_request(request)
        own = request.kind
        target = own if shown.body_kind else invocation.kind
        obj = await converted(_before_creation(shown), own, target)
        old = await converted(shown.old, own, target)
        if not await self._caller.wants(invocation, shown, obj, old):
            return
        response = await self._caller.ask(invocation, shown, obj, old)
        if response is None:
            return
        changed = False
        if response.patch:
            changed = await self._apply(invocation, request, shown, obj, target, response)
        _annotate(invocation, request, changed, response)
        if changed:
            rounds.somebody_changed()
            request.reinvocation.again = True
        if invocation.webhook.is_reinvocable:
            rounds.asked.add(invocation.webhook.uid)

    async def _apply(
        self,
        invocation: Invocation,
        request: AdmissionRequest,
        shown: AdmissionRequest,
        obj: Object | None,
        target: Kind,
        response: Response,
    ) -> bool:
        """Put the patched object into the request; whether it differs. Raises InternalError."""
        if obj is None or request.obj is None:
            raise internal(
                f'admission webhook "{invocation.webhook.name}" attempted to modify the object, which is not '
                "supported for this operation"
            )
        try:
            patched = apply_json_patch(obj, response.patch)
        except StatusError as fault:
            raise internal(str(fault.__cause__ or fault.message)) from fault
        if patched == obj:
            return False
        patched = _checked(patched, obj, target, shown.body_kind)
        if shown is not request:
            _put_scale(request, patched)
            return True
        if not shown.body_kind:
            target.default(patched)
        result = await converted(patched, target, request.kind)
        assert result is not None
        _put_back(request, result)
        return True


def _encoded(obj: Object | None) -> bytes:
    return orjson.dumps(obj)


def _before_creation(request: AdmissionRequest) -> Object | None:
    """The object without what the server sets on its creation; mutating webhooks come before that."""
    obj = request.obj
    if obj is None or request.operation is not Operation.CREATE or request.subresource:
        return obj
    metadata = {key: value for key, value in obj["metadata"].items() if key not in _NOT_YET_SET}
    metadata["creationTimestamp"] = None
    base = metadata.get("generateName")
    if base and _is_generated(str(metadata.get("name", "")), str(base)):
        del metadata["name"]
    return {**obj, "metadata": metadata}


def _is_generated(name: str, base: str) -> bool:
    return bool(name) and base.startswith(name[:-_SUFFIX]) and len(name) > _SUFFIX


def _checked(patched: Object, obj: Object, kind: Kind, body_kind: tuple[str, str, str] | None) -> Object:
    """The patched object without unknown fields. Raises InternalError where it is none of its kind any more."""
    if not isinstance(patched.get("metadata"), dict) and isinstance(obj.get("metadata"), dict):
        raise internal("the patched object has no metadata")
    for key in ("apiVersion", "kind"):
        if key in obj:
            patched[key] = obj[key]
    if body_kind is not None:
        group, version, name = body_kind
        found = strict.check(patched, f"{group}/{version}" if group else version, name)
    elif kind.decode is not None:
        checked = kind.decode(patched)
        if checked.type_errors:
            raise internal(checked.type_errors[0])
        return checked.pruned
    else:
        found = strict.check(patched, kind.api_version, kind.kind)
    if found.type_errors:
        raise internal(found.type_errors[0])
    return found.pruned


def _put_back(request: AdmissionRequest, result: Object) -> None:
    """Make the request's object what the webhook made of it, the same dict as before: others hold it."""
    obj = request.obj
    assert obj is not None
    if "metadata" not in obj:
        obj.clear()
        obj.update(result)
        return
    metadata, changed = obj["metadata"], result["metadata"]
    if (changed.get("namespace") or "") != (metadata.get("namespace") or ""):
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    kept = {key: metadata[key] for key in _SERVER_OWNED if key in metadata}
    name = changed.get("name") or metadata.get("name")
    metadata.clear()
    metadata.update({key: value for key, value in changed.items() if key not in _SERVER_OWNED})
    metadata.update(kept)
    if name:
        metadata["name"] = name
    obj.clear()
    obj.update(result)
    obj["metadata"] = metadata


def _put_scale(request: AdmissionRequest, scale: Object) -> None:
    obj = request.obj
    assert obj is not None
    obj["spec"] = scaled(request.kind, obj, scale)["spec"]


def _annotate(invocation: Invocation, request: AdmissionRequest, changed: bool, response: Response) -> None:
    webhook = invocation.webhook
    place = f"webhook.admission.k8s.io/round_{request.reinvocation.round}_index_{invocation.index}"
    who = {"configuration": webhook.configuration, "webhook": webhook.name}
    annotations = request.remarks.annotations
    annotations[f"mutation.{place}"] = orjson.dumps({**who, "mutated": changed}).decode()
    if changed:
        patch = {**who, "patch": response.patch, "patchType": "JSONPatch"}
        annotations[f"patch.{place}"] = orjson.dumps(patch).decode()
