"""What one policy says to one request with one set of parameters. Talks to nobody but the authorizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.apiserver.admission.evaluation import Evaluation, failed_condition
from controlplane.apiserver.admission.policies.compiled import Compiled, Expressions, Validation
from controlplane.cel import CelCompileError, CelRuntimeError

MAX_MESSAGE = 5 * 1024
MAX_ANNOTATION = 10 * 1024


@dataclass(frozen=True, slots=True)
class Denial:
    """`index` is the validation's place, None for faults of the whole policy."""

    message: str
    reason: str = ""
    index: int | None = None


@dataclass(slots=True)
class Verdict:
    denials: list[Denial] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)


class _Faults(Exception):
    """An expression that cannot be evaluated; the text is for the client."""


class Judge:
    """Evaluates a policy's expressions in order: conditions, variables, validations, annotations."""

    def __init__(self, expressions: Expressions, evaluation: Evaluation, *, ignores_failures: bool) -> None:
        self._expressions = expressions
        self._evaluation = evaluation
        self._ignores_failures = ignores_failures
        self._broken: dict[str, str] = {}

    async def judge(self) -> Verdict:
        verdict = Verdict()
        conditions = self._expressions.conditions
        if isinstance(conditions, CelCompileError):
            self._fail(verdict, str(conditions))
            return verdict
        is_false, errors = await failed_condition(conditions, self._evaluation)
        if is_false:
            return verdict
        if errors:
            self._fail(verdict, errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
            return verdict
        await self._bind_variables()
        for index, validation in enumerate(self._expressions.validations):
            await self._validate(verdict, index, validation)
        for key, text, program in self._expressions.annotations:
            await self._annotate(verdict, key, text, program)
        return verdict

    async def _bind_variables(self) -> None:
        """Each variable sees those before it; a fault is told to those who use the variable."""
        if not self._expressions.variables:
            return
        values: dict[str, Any] = {}
        self._evaluation.bind("variables", dict(values))
        for name, program in self._expressions.variables:
            try:
                values[name] = await self._run(program, str(getattr(program, "text", "")))
            except _Faults as fault:
                self._broken[name] = str(fault)
            self._evaluation.bind("variables", dict(values))

    async def _validate(self, verdict: Verdict, index: int, validation: Validation) -> None:
        text = str(validation.source["expression"])
        try:
            if await self._run(validation.condition, text):
                return
        except _Faults as fault:
            self._fail(verdict, f"expression '{text}' resulted in error: {fault}", index)
            return
        message = await self._message(validation)
        verdict.denials.append(Denial(message, str(validation.source.get("reason") or ""), index))

    async def _message(self, validation: Validation) -> str:
        """The message expression's text where it gives a usable one, else the fixed one."""
        if validation.message is None:
            return validation.text
        try:
            text = str(await self._run(validation.message, "")).strip()
        except _Faults:
            return validation.text
        if not text or len(text.encode()) > MAX_MESSAGE or "\n" in text or "\r" in text:
            return validation.text
        return text

    async def _annotate(self, verdict: Verdict, key: str, text: str, program: Compiled) -> None:
        try:
            value = await self._run(program, text)
        except _Faults as fault:
            self._fail(verdict, f"valueExpression '{text}' resulted in error: {fault}")
            return
        value = "" if value is None else str(value).strip()
        if value:
            verdict.annotations[key] = value[:MAX_ANNOTATION]

    async def _run(self, program: Compiled, text: str) -> Any:
        if isinstance(program, CelCompileError):
            raise _Faults(str(program))
        try:
            return await self._evaluation.evaluate(program)
        except CelRuntimeError as fault:
            why = str(fault)
            missing = why.removeprefix("no such key: ")
            if missing != why and missing in self._broken:
                why = f'composited variable "{missing}" fails to evaluate: {self._broken[missing]}'
            raise _Faults(why) from fault

    def _fail(self, verdict: Verdict, message: str, index: int | None = None) -> None:
        if not self._ignores_failures:
            verdict.denials.append(Denial(message, index=index))


def joined(annotations: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Annotations of several bindings or parameters: different values of one key, separated by commas."""
    values: dict[str, list[str]] = {}
    for each in annotations:
        for key, value in each.items():
            known = values.setdefault(key, [])
            if value not in known:
                known.append(value)
    return {key: ", ".join(sorted(each))[:MAX_ANNOTATION] for key, each in values.items()}
