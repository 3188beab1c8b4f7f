"""Policies and bindings as they are used: rules parsed, expressions compiled when first needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from controlplane.apiserver.admission.matching import Question, Rule, Selectors, matching_kind
from controlplane.cel import CelCompileError, CelType, Program
from controlplane.errors import Object
from controlplane.resources.admissionregistration.expressions import (
    BOOLEAN,
    TEXT,
    TEXT_OR_NULL,
    Compiler,
    compile_conditions,
)
from controlplane.resources.kind import Kind

_REMEMBERED = 1024
_Match = tuple[Kind, Sequence[Rule]] | None
Compiled = Program | CelCompileError
"""An expression that could not be compiled is a fault each time it is to be evaluated."""


@dataclass(frozen=True, slots=True)
class MatchResources:
    """matchConstraints of a policy or matchResources of a binding."""

    rules: tuple[Rule, ...]
    excluded: tuple[Rule, ...]
    selectors: Selectors
    equivalent: bool
    _remembered: dict[tuple[object, ...], tuple[_Match, _Match]] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, source: Object) -> MatchResources:
        return cls(
            tuple(Rule.parse(rule) for rule in source.get("resourceRules") or ()),
            tuple(Rule.parse(rule) for rule in source.get("excludeResourceRules") or ()),
            Selectors.parse(source),
            source.get("matchPolicy") != "Exact",
        )

    def kind_for(self, question: Question, name: str, kinds: Iterable[Kind]) -> Kind | None:
        """The version of the resource to evaluate in; None when the request is not meant. No rules mean all."""
        key = (*question.key, getattr(kinds, "edition", 0))
        match = self._remembered.get(key)
        if match is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            match = self._remembered[key] = (
                matching_kind(self.excluded, question, kinds, equivalent=self.equivalent),
                matching_kind(self.rules, question, kinds, equivalent=self.equivalent),
            )
        excluded, found = match
        if excluded is not None and any(rule.concerns(name) for rule in excluded[1]):
            return None
        if not self.rules:
            return question.kind
        if found is None or not any(rule.concerns(name) for rule in found[1]):
            return None
        return found[0]


@dataclass(frozen=True, slots=True)
class Validation:
    source: Object
    condition: Compiled
    message: Compiled | None

    @property
    def text(self) -> str:
        """What is said without a message expression."""
        message = str(self.source.get("message") or "").strip()
        return message or f"failed expression: {str(self.source['expression']).strip()}"


@dataclass(frozen=True, slots=True)
class Expressions:
    conditions: Sequence[tuple[str, Program]] | CelCompileError
    variables: Sequence[tuple[str, Compiled]]
    validations: Sequence[Validation]
    annotations: Sequence[tuple[str, str, Compiled]]
    """Key, text and program."""


@dataclass(slots=True)
class Policy:
    """One ValidatingAdmissionPolicy with its bindings."""

    source: Object
    match: MatchResources
    bindings: list[Binding] = field(default_factory=list)
    _expressions: Expressions | None = None

    @classmethod
    def parse(cls, source: Object) -> Policy:
        return cls(source, MatchResources.parse(source["spec"].get("matchConstraints") or {}))

    @property
    def name(self) -> str:
        return str(self.source["metadata"]["name"])

    @property
    def ignores_failures(self) -> bool:
        return bool(self.source["spec"].get("failurePolicy") == "Ignore")

    @property
    def param_kind(self) -> Object | None:
        found: Object | None = self.source["spec"].get("paramKind")
        return found

    @property
    def expressions(self) -> Expressions:
        if self._expressions is None:
            self._expressions = compile_policy(self.source["spec"])
        return self._expressions


@dataclass(frozen=True, slots=True)
class Binding:
    source: Object
    match: MatchResources | None

    @classmethod
    def parse(cls, source: Object) -> Binding:
        match = source["spec"].get("matchResources")
        return cls(source, None if match is None else MatchResources.parse(match))

    @property
    def name(self) -> str:
        return str(self.source["metadata"]["name"])

    @property
    def actions(self) -> Sequence[str]:
        return self.source["spec"].get("validationActions") or ()


def compile_policy(spec: Object) -> Expressions:
    """Every expression of a policy; faults stay where they are."""
    params = spec.get("paramKind") is not None
    conditions: Sequence[tuple[str, Program]] | CelCompileError
    try:
        conditions = compile_conditions(spec.get("matchConditions") or (), Compiler(params=params))
    except CelCompileError as fault:
        conditions = fault
    compiler = Compiler(params=params)
    variables: list[tuple[str, Compiled]] = []
    if spec.get("variables"):
        compiler.compose()
    for variable in spec.get("variables") or ():
        program = _compiled(compiler, variable["expression"], None)
        variables.append((variable["name"], program))
        if isinstance(program, Program):
            compiler.declare(variable["name"], program.result)
    validations = [
        Validation(
            source,
            _compiled(compiler, source["expression"], BOOLEAN),
            _compiled(compiler, source["messageExpression"], TEXT, authorizer=False)
            if source.get("messageExpression")
            else None,
        )
        for source in spec.get("validations") or ()
    ]
    annotations = [
        (item["key"], item["valueExpression"], _compiled(compiler, item["valueExpression"], TEXT_OR_NULL))
        for item in spec.get("auditAnnotations") or ()
    ]
    return Expressions(conditions, variables, validations, annotations)


def _compiled(
    compiler: Compiler, text: str, results: Iterable[CelType] | None, *, authorizer: bool = True
) -> Compiled:
    try:
        return compiler.compile(text, results, authorizer=authorizer)
    except CelCompileError as fault:
        return fault
