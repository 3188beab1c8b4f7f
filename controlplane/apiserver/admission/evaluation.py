"""CEL expressions of admission evaluated for one request: the values of the variables, and access checks.

`authorizer` expressions ask the server's authorizer, which may take its time: an evaluation that needs an answer is
given up, the answer fetched, and the evaluation made again. Shared by match conditions and policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.admission.review import review_request
from controlplane.apiserver.authz import Attributes, Authorizer
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.cel import AccessAnswer, AccessCheck, Bindings, CelRuntimeError, Program, to_cel
from controlplane.cel.authorization import authorizer, resource_check
from controlplane.errors import Object
from controlplane.resources.admissionregistration.expressions import NAMESPACE
from controlplane.resources.kind import Kind

_ROUNDS = 64
"""Checks that one expression may have answered."""


class AuthorizerSeat:
    """The server's authorizer; without one every check is an error."""

    def __init__(self, authorizer: Authorizer | None = None) -> None:
        self.authorizer = authorizer

    async def ask(self, user: UserInfo, check: AccessCheck) -> AccessAnswer:
        if self.authorizer is None:
            return AccessAnswer(False, error="no authorizer is configured")
        if check.service_account:
            namespace = check.service_account.split(":")[2]
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            user = UserInfo(check.service_account, groups=groups)
        decision = await self.authorizer.authorize(Attributes(user, _request_info(check)))
        return AccessAnswer(decision.allowed, decision.reason, str(getattr(decision, "error", "")))


def _request_info(check: AccessCheck) -> RequestInfo:
    if check.path:
        return RequestInfo(check.verb, check.path)
    return RequestInfo(
        verb=check.verb, path="", is_resource=True, group=check.group, version="*", namespace=check.namespace,
        resource=check.resource, name=check.name, subresource=check.subresource,
    )  # fmt: skip


class Evaluation:
    """Evaluates expressions for one request. `values` are shared by all; `bind` adds further ones."""

    def __init__(self, seat: AuthorizerSeat, user: UserInfo, values: Mapping[str, Any]) -> None:
        self._seat = seat
        self._user = user
        self._values = dict(values)
        self._bindings: Bindings | None = None
        self._answers: dict[AccessCheck, AccessAnswer] = {}
        self._open: list[AccessCheck] = []

    def with_values(self, **values: Any) -> Evaluation:
        """The same with more variables."""
        other = Evaluation(self._seat, self._user, {**self._values, **values})
        other._answers = self._answers
        return other

    def bind(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._bindings = None

    async def evaluate(self, program: Program) -> Any:
        """Raises CelRuntimeError."""
        if self._bindings is None:
            self._bindings = Bindings(self._values)
        for _ in range(_ROUNDS):
            self._open = []
            fault: CelRuntimeError | None = None
            result: Any = None
            try:
                result = program.evaluate(self._bindings, self._answer)
            except CelRuntimeError as error:
                fault = error
            if not self._open:
                if fault is not None:
                    raise fault
                return result
            for check in self._open:
                self._answers[check] = await self._seat.ask(self._user, check)
        raise CelRuntimeError("operation cancelled: actual cost limit exceeded")

    def _answer(self, check: AccessCheck) -> AccessAnswer:
        found = self._answers.get(check)
        if found is None:
            self._open.append(check)
            raise ValueError("the answer is not known yet")
        return found


def evaluation_for(
    seat: AuthorizerSeat, request: AdmissionRequest, kind: Kind, obj: Object | None, old: Object | None
) -> Evaluation:
    """`object`, `oldObject`, `request`, `namespaceObject` and the authorizer's variables of a request.

    `kind`, `obj` and `old`: the request in the version that was asked for.
    """
    name = request.name
    values = {
        "object": obj,
        "oldObject": old,
        "request": {
            key: value for key, value in review_request(request, kind).items() if key not in _LEFT_OUT
        },
        "namespaceObject": None,
        "authorizer": authorizer(),
        "authorizer.requestResource": resource_check(
            kind.group, kind.plural, request.subresource, request.namespace, name
        ),
    }
    return Evaluation(seat, request.user, values)


_LEFT_OUT = frozenset({"uid", "object", "oldObject"})


async def failed_condition(
    conditions: Sequence[tuple[str, Program]], evaluation: Evaluation
) -> tuple[bool, list[str]]:
    """Whether one is false, which decides; otherwise the errors of those that could not be evaluated."""
    errors: list[str] = []
    for _, program in conditions:
        try:
            if not await evaluation.evaluate(program):
                return True, []
        except CelRuntimeError as fault:
            errors.append(f"expression '{program.text}' resulted in error: {fault}")
    return False, errors


def namespace_value(namespace: Object | None) -> Object | None:
    """A namespace as expressions see it: the fields of its declared type, times as times."""
    if namespace is None:
        return None
    metadata = {**namespace["metadata"], "UID": namespace["metadata"].get("uid", "")}
    found: Object = to_cel({**namespace, "metadata": metadata}, NAMESPACE)
    return found
