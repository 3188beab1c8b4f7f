"""What is wrong with a policy's expressions for each kind it is about. Pure.

As upstream (policy/validating/typechecking.go, v1.32): rules with wildcards are not checked, ten kinds are at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from controlplane.cel import CelCompileError, CelType
from controlplane.controllers.policy_status.types import type_of_kind
from controlplane.errors import Object
from controlplane.resources.admissionregistration.expressions import BOOLEAN, TEXT, Compiler
from controlplane.resources.kind import Kind

MAX_KINDS = 10
_LEAD = "compilation failed: "


def expression_warnings(policy: Object, kinds: Sequence[Kind]) -> list[Object]:
    """The items of `status.typeChecking.expressionWarnings`."""
    spec = policy["spec"]
    found: dict[str, list[str]] = {}
    for kind in _kinds_of(spec, kinds):
        typed = type_of_kind(kind.api_version, kind.kind)
        if typed is None:
            continue
        title = f"{kind.api_version}, Kind={kind.kind}"
        for place, fault in _faults(spec, typed):
            found.setdefault(place, []).append(f"{title}: {fault}")
    return [{"fieldRef": place, "warning": "\n".join(faults)} for place, faults in found.items()]


def _kinds_of(spec: Object, kinds: Sequence[Kind]) -> list[Kind]:
    wanted: dict[tuple[str, str], Kind] = {}
    for rule in (spec.get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        resources = rule.get("resources") or ()
        if "*" in groups or "*" in versions or any("*" in text or "/" in text for text in resources):
            continue
        for kind in kinds:
            if kind.group in groups and kind.version in versions and kind.plural in resources:
                wanted[kind.api_version, kind.kind] = kind
    return [wanted[key] for key in sorted(wanted)][:MAX_KINDS]


def _faults(spec: Object, typed: CelType) -> Iterable[tuple[str, str]]:
    types: dict[str, CelType] = {"object": typed, "oldObject": typed}
    params = spec.get("paramKind")
    if params:
        known = type_of_kind(params.get("apiVersion", ""), params.get("kind", ""))
        if known is not None:
            types["params"] = known
    compiler = _with_variables(spec, Compiler(params=bool(params), typed=types))
    for at, validation in enumerate(spec.get("validations") or ()):
        place = f"spec.validations[{at}]"
        try:
            compiler.compile(validation["expression"], BOOLEAN)
        except CelCompileError as fault:
            yield f"{place}.expression", str(fault).removeprefix(_LEAD)
        if validation.get("messageExpression"):
            try:
                compiler.compile(validation["messageExpression"], TEXT, authorizer=False)
            except CelCompileError as fault:
                yield f"{place}.messageExpression", str(fault).removeprefix(_LEAD)


def _with_variables(spec: Mapping[str, Sequence[Object]], compiler: Compiler) -> Compiler:
    variables = spec.get("variables") or ()
    if variables:
        compiler.compose()
    for variable in variables:
        try:
            compiler.declare(variable["name"], compiler.compile(variable["expression"], None).result)
        except CelCompileError:
            continue  # Whoever uses it is told that it is not there.
    return compiler
