"""What may change in a Job's spec (v1.32). Pure.

Completions only together with parallelism and only of indexed Jobs; scheduling directives of the template only while
the Job is suspended and has never been started.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig
from controlplane.resources.apps.rules import go_selector
from controlplane.resources.batch import words
from controlplane.resources.rules import IMMUTABLE, Field, same

_FIXED = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_DIRECTIVES = ("nodeSelector", "tolerations", "schedulingGates")


def validate_update(new: Object, old: Object) -> Sequence[Cause]:
    spec, before = Field.root(new)["spec"], Field.root(old)["spec"]
    _completions(spec, before)
    selector = spec["selector"]
    if not same(selector.value, before["selector"].value):
        selector.of(go_selector(selector.value or {})).invalid(IMMUTABLE)
    template = spec["template"]
    allowed = before["template"].value or {}
    if before["suspend"].value and dig(old, "status", "startTime") is None:
        allowed = _with_directives(allowed, template.value or {})
    template.unchanged(template.of(allowed))
    for name in _FIXED:
        spec[name].unchanged(before[name])
    return spec.causes


def _completions(spec: Field, before: Field) -> None:
    completions = spec["completions"]
    if spec["completionMode"].value != words.INDEXED:
        completions.unchanged(before["completions"])
    elif completions.value not in (None, before["completions"].value, spec["parallelism"].value):
        completions.invalid("can only be modified in tandem with spec.parallelism")


def _with_directives(template: Object, new: Object) -> Object:
    """The old template with what the new one may differ in taken from there."""
    spec, wanted = dict(template.get("spec") or {}), new.get("spec") or {}
    metadata, described = dict(template.get("metadata") or {}), new.get("metadata") or {}
    for name in _DIRECTIVES:
        spec[name] = wanted.get(name)
    for name in ("labels", "annotations"):
        metadata[name] = described.get(name)
    affinity = dict(spec.get("affinity") or {})
    affinity["nodeAffinity"] = (wanted.get("affinity") or {}).get("nodeAffinity")
    spec["affinity"] = {name: value for name, value in affinity.items() if value is not None}
    return {**template, "metadata": metadata, "spec": spec}
