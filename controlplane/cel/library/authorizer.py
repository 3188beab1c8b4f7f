"""The `authorizer` variable: `authorizer.group('apps').resource('deployments').check('create').allowed()`.

A check asks the `Authorize` of the evaluation under way (`authorization.asking`).
"""

from __future__ import annotations

from typing import Any

from controlplane.cel.authorization import AccessCheck, ask
from controlplane.cel.functions import Function, Implementation, is_wrapped, member, unwrap, wrap
from controlplane.cel.types import (
    AUTHORIZER,
    BOOL,
    DECISION,
    GROUP_CHECK,
    PATH_CHECK,
    RESOURCE_CHECK,
    STRING,
    CelType,
)


def _with(receiver: CelType, result: CelType, field: str) -> Implementation:
    def change(value: Any, text: str) -> dict[str, Any]:
        return wrap(result, {**unwrap(receiver, value), field: text})

    return change


def _path(value: Any, path: str) -> dict[str, Any]:
    if not path:
        raise ValueError("path must not be empty")
    return wrap(PATH_CHECK, {**unwrap(AUTHORIZER, value), "path": path})


def _service_account(value: Any, namespace: str, name: str) -> dict[str, Any]:
    account = f"system:serviceaccount:{namespace}:{name}"
    return wrap(AUTHORIZER, {**unwrap(AUTHORIZER, value), "service_account": account})


def _check(value: Any, verb: str) -> dict[str, Any]:
    kind = PATH_CHECK if is_wrapped(PATH_CHECK, value) else RESOURCE_CHECK
    answer = ask(AccessCheck(verb=verb, **unwrap(kind, value)))
    return wrap(DECISION, {"allowed": answer.allowed, "reason": answer.reason, "error": answer.error})


def _allowed(value: Any) -> bool:
    return bool(unwrap(DECISION, value)["allowed"])


def _reason(value: Any) -> str:
    return str(unwrap(DECISION, value)["reason"])


def _error(value: Any) -> str:
    return str(unwrap(DECISION, value)["error"])


def _errored(value: Any) -> bool:
    return bool(unwrap(DECISION, value)["error"])


def _narrow(name: str, field: str) -> Function:
    return member(
        name,
        _with(RESOURCE_CHECK, RESOURCE_CHECK, field),
        (f"resourcecheck_{field}", (RESOURCE_CHECK, STRING), RESOURCE_CHECK),
    )


FUNCTIONS: tuple[Function, ...] = (
    member("path", _path, ("authorizer_path", (AUTHORIZER, STRING), PATH_CHECK)),
    member(
        "serviceAccount",
        _service_account,
        ("authorizer_serviceaccount", (AUTHORIZER, STRING, STRING), AUTHORIZER),
    ),
    member(
        "group",
        _with(AUTHORIZER, GROUP_CHECK, "group"),
        ("authorizer_group", (AUTHORIZER, STRING), GROUP_CHECK),
    ),
    member(
        "resource",
        _with(GROUP_CHECK, RESOURCE_CHECK, "resource"),
        ("groupcheck_resource", (GROUP_CHECK, STRING), RESOURCE_CHECK),
    ),
    _narrow("subresource", "subresource"),
    _narrow("namespace", "namespace"),
    _narrow("name", "name"),
    _narrow("fieldSelector", "field_selector"),
    _narrow("labelSelector", "label_selector"),
    member(
        "check",
        _check,
        ("pathcheck_check", (PATH_CHECK, STRING), DECISION),
        ("resourcecheck_check", (RESOURCE_CHECK, STRING), DECISION),
    ),
    member("allowed", _allowed, ("decision_allowed", (DECISION,), BOOL)),
    member("reason", _reason, ("decision_reason", (DECISION,), STRING)),
    member("error", _error, ("decision_error", (DECISION,), STRING)),
    member("errored", _errored, ("decision_errored", (DECISION,), BOOL)),
)
