"""ValidatingAdmissionPolicy: policies in CEL, made effective by bindings, with objects of any kind as parameters.

Texts are those of k8s.io/apiserver's admission/plugin/policy/validating (v1.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import orjson

from controlplane.apiserver.admission.evaluation import (
    AuthorizerSeat,
    Evaluation,
    evaluation_for,
    namespace_value,
)
from controlplane.apiserver.admission.matching import Question, is_exempt
from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.admission.policies.compiled import Binding, MatchResources, Policy
from controlplane.apiserver.admission.policies.verdicts import Denial, Judge, joined
from controlplane.apiserver.admission.webhooks.hooks import GROUP, converted, seen_request
from controlplane.errors import Cause, Object, StatusError
from controlplane.meta.labels import LabelSelector
from controlplane.resources.kind import Kind

_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_FAILURES = "validation.policy.admission.k8s.io/validation_failure"


class _Misconfigured(Exception):
    """A binding that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    policy: str
    binding: str
    denial: Denial


class ValidatingAdmissionPolicy:
    """See `plugin.ValidatingPlugin`. `kinds` are all served kinds, whatever they are at the time."""

    def __init__(self, seat: AuthorizerSeat, kinds: Iterable[Kind]) -> None:
        self._seat = seat
        self._kinds = kinds
        self._edition: tuple[tuple[str, str], ...] = ()
        self._policies: tuple[Policy, ...] = ()

    async def validate(self, request: AdmissionRequest) -> None:
        bindings = await request.listing(GROUP, "validatingadmissionpolicybindings", "")
        if not bindings or is_exempt(request.kind):
            return
        policies = await request.listing(GROUP, "validatingadmissionpolicies", "")
        self._refresh(policies, bindings)
        shown = seen_request(request)
        refusals: list[_Refusal] = []
        failures: list[Object] = []
        annotations: list[dict[str, str]] = []
        for policy in self._policies:
            kind = await self._kind_for(policy.match, shown)
            if kind is not None:
                await self._apply(policy, shown, kind, refusals, failures, annotations)
        request.remarks.annotations.update(joined(annotations))
        if failures:
            request.remarks.annotations[_FAILURES] = orjson.dumps(failures).decode()
        if refusals:
            raise _denied(request, refusals[0])

    def _refresh(self, policies: Sequence[Object], bindings: Sequence[Object]) -> None:
        edition = tuple(
            (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]) for obj in (*policies, *bindings)
        )
        if edition == self._edition:
            return
        known = {
            (policy.source["metadata"]["uid"], policy.source["metadata"].get("generation")): policy
            for policy in self._policies
        }
        by_name: dict[str, Policy] = {}
        for source in policies:
            metadata = source["metadata"]
            # A status written by the controller leaves the expressions as they are.
            policy = known.get((metadata["uid"], metadata.get("generation"))) or Policy.parse(source)
            policy.bindings = []
            by_name[metadata["name"]] = policy
        for source in bindings:
            bound = by_name.get(source["spec"].get("policyName", ""))
            if bound is not None:
                bound.bindings.append(Binding.parse(source))
        self._edition = edition
        self._policies = tuple(policy for policy in by_name.values() if policy.bindings)

    async def _kind_for(self, match: MatchResources, request: AdmissionRequest) -> Kind | None:
        kind = match.kind_for(Question.of(request), request.name, self._kinds)
        if kind is None or not await match.selectors.match(request):
            return None
        return kind

    async def _apply(
        self,
        policy: Policy,
        request: AdmissionRequest,
        kind: Kind,
        refusals: list[_Refusal],
        failures: list[Object],
        annotations: list[dict[str, str]],
    ) -> None:
        evaluation: Evaluation | None = None
        for binding in policy.bindings:
            if binding.match is not None and await self._kind_for(binding.match, request) is None:
                continue
            try:
                params = await self._params(policy, binding, request)
            except _Misconfigured as fault:
                if not policy.ignores_failures:
                    denial = Denial(f"failed to configure binding: {fault}")
                    refusals.append(_Refusal(policy.name, binding.name, denial))
                continue
            evaluation = evaluation or await self._evaluation(request, kind)
            for param in params:
                judge = Judge(
                    policy.expressions,
                    evaluation.with_values(params=param),
                    ignores_failures=policy.ignores_failures,
                )
                verdict = await judge.judge()
                annotations.append(
                    {f"{policy.name}/{key}": text for key, text in verdict.annotations.items()}
                )
                for denial in verdict.denials:
                    self._act(policy, binding, denial, request, refusals, failures)

    async def _evaluation(self, request: AdmissionRequest, kind: Kind) -> Evaluation:
        target = request.kind if request.body_kind else kind
        obj = await converted(request.obj, request.kind, target)
        old = await converted(request.old, request.kind, target)
        evaluation = evaluation_for(self._seat, request, kind, obj, old)
        if request.namespace:
            namespace = await request.lookup("", "namespaces", "", request.namespace)
            evaluation.bind("namespaceObject", namespace_value(namespace))
        return evaluation

    async def _params(
        self, policy: Policy, binding: Binding, request: AdmissionRequest
    ) -> Sequence[Object | None]:
        """The parameters to evaluate with, one after another. Raises _Misconfigured."""
        wanted, ref = policy.param_kind, binding.source["spec"].get("paramRef")
        if wanted is None or ref is None:
            return (None,)
        kind = self._param_kind(wanted)
        namespace = ""
        if kind.namespaced:
            namespace = ref.get("namespace") or request.namespace
            if not namespace:
                raise _Misconfigured(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif ref.get("namespace"):
            raise _Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found: Sequence[Object]
        if ref.get("name"):
            one = await request.lookup(kind.group, kind.plural, namespace, ref["name"])
            found = () if one is None else (one,)
        else:
            selector = LabelSelector.from_object(ref.get("selector") or {})
            every = await request.listing(kind.group, kind.plural, namespace)
            found = [obj for obj in every if selector.matches(obj["metadata"].get("labels") or {})]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise _Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _param_kind(self, wanted: Object) -> Kind:
        version, name = wanted.get("apiVersion", ""), wanted.get("kind", "")
        kind = next((kind for kind in self._kinds if kind.api_version == version and kind.kind == name), None)
        if kind is None:
            raise _Misconfigured(f"failed to find resource referenced by paramKind: '{version}, Kind={name}'")
        return kind

    def _act(
        self,
        policy: Policy,
        binding: Binding,
        denial: Denial,
        request: AdmissionRequest,
        refusals: list[_Refusal],
        failures: list[Object],
    ) -> None:
        for action in binding.actions:
            if action == "Deny":
                refusals.append(_Refusal(policy.name, binding.name, denial))
            elif action == "Warn":
                request.remarks.warnings.append(
                    f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding "
                    f"'{binding.name}': {denial.message}"
                )
            elif action == "Audit":
                failures.append(
                    {
                        "message": denial.message,
                        "policy": policy.name,
                        "binding": binding.name,
                        "expressionIndex": denial.index or 0,
                        "validationActions": list(binding.actions),
                    }
                )


def _denied(request: AdmissionRequest, refusal: _Refusal) -> StatusError:
    message = (
        f"ValidatingAdmissionPolicy '{refusal.policy}' with binding '{refusal.binding}' denied request: "
        f"{refusal.denial.message}"
    )
    forbidden = request.forbid(message)
    reason = refusal.denial.reason or "Invalid"
    return _with(_CODES.get(reason, 422), reason)(
        forbidden.message,
        name=forbidden.name,
        group=forbidden.group,
        kind=forbidden.kind,
        causes=[Cause("", message, "")],
    )


@cache
def _with(code: int, reason: str) -> type[StatusError]:
    return type("PolicyDenial", (StatusError,), {"code": code, "reason": reason})
