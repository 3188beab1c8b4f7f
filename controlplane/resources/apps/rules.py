"""What the workload kinds of `apps/v1` and ReplicationControllers share: defaults, rules of selector and template,
texts (pkg/apis/apps/validation, v1.32). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from controlplane.errors import Cause, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.names import dns1123_label, regex_error
from controlplane.meta.objects import name
from controlplane.resources.fieldpath import Literal, invalid, not_supported, quoted, string_list, string_map
from controlplane.resources.kind import Column
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import IMMUTABLE, Field, same

REVISION_HISTORY = 10


def selector_column(spec: str) -> Column:
    """The wide column that shows a selector; `spec` names the type it is a field of."""
    return Column("Selector", priority=1, documents=f"{spec}.selector")


_PERCENT = "[0-9]+%"
_PERCENT_MESSAGE = regex_error(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, ("1%", "93%")
)


def default_workload(workload: Object) -> Object:
    """Defaults of the pod template and an empty status; gives the spec, made if need be, for more defaults."""
    spec: Object | None = workload.get("spec")
    if spec is None:
        spec = workload["spec"] = {}
    if spec.get("template") is None:
        spec["template"] = {}
    default_template(spec["template"])
    if workload.get("status") is None:
        workload["status"] = {}
    return spec


def fill(holder: Object, field: str, value: object) -> None:
    """Set what is missing or null."""
    if holder.get(field) is None:
        holder[field] = value


def selector_unchanged(new: Object, old: Object) -> Sequence[Cause]:
    """The selector stays what it is."""
    field = Field.root(new)
    selector = field["spec"]["selector"]
    if not same(selector.value, (old.get("spec") or {}).get("selector")):
        selector.of(go_selector(selector.value or {})).invalid(IMMUTABLE)
    return field.causes


def validate_selector(selector: Field, owner: str) -> None:
    """A selector that selects something; `owner` is the word for the kind in the text."""
    if selector.value is None:
        selector.required()
        return
    validate_label_selector(selector)
    if not selector["matchLabels"].value and not selector["matchExpressions"].value:
        selector.of(go_selector(selector.value)).invalid(f"empty selector is invalid for {owner}")


def selector_matches(selector: Field, template: Field, unparsable: str = "invalid label selector") -> None:
    """The template's labels are ones the selector takes in; no selector at all takes in nothing."""
    if selector.value is None:
        labels_do_not_match(template)
        return
    try:
        parsed = LabelSelector.from_object(selector.value)
    except ValueError:
        selector.of(go_selector(selector.value)).invalid(unparsable)
        return
    if parsed.requirements and not parsed.matches(template["metadata"]["labels"].value or {}):
        labels_do_not_match(template)


def labels_do_not_match(template: Field) -> None:
    labels = template["metadata"]["labels"]
    labels.fail(invalid(labels.path, string_map(labels.value), "`selector` does not match template `labels`"))


def always_and_forever(template: Field, owner: str) -> None:
    """Pods that are kept alive are restarted always and have no deadline."""
    policy = template["spec"]["restartPolicy"]
    if policy.present and policy.value != "Always":
        policy.fail(not_supported(policy.path, policy.value, ["Always"]))
    deadline = template["spec"]["activeDeadlineSeconds"]
    if deadline.value is not None:
        deadline.forbidden(f"activeDeadlineSeconds in {owner} is not Supported")


def count_or_percent(field: Field) -> None:
    if isinstance(field.value, str):
        if not re.fullmatch(_PERCENT, field.value):
            shown_plainly(field).invalid(_PERCENT_MESSAGE)
    else:
        field.not_negative()


def at_most_all(field: Field) -> None:
    """A percentage is one of the whole."""
    if isinstance(field.value, str) and amount(field.value) > 100:
        shown_plainly(field).invalid("must not be greater than 100%")


def amount(value: object) -> int:
    """The number in `3` or `25%`; a text that is no percentage counts as 0, as upstream has it."""
    if isinstance(value, int):
        return value
    return int(value[:-1]) if isinstance(value, str) and re.fullmatch(_PERCENT, value) else 0


def shown_plainly(field: Field) -> Field:
    """Go prints a number-or-text without quotes."""
    return field.of(Literal(field.value))


def go_pointer(type_: str, value: object) -> str:
    """A pointer inside a struct that Go prints; the address means nothing to anybody."""
    return f"(*{type_})({'nil' if value is None else '...'})"


def go_selector(selector: Object) -> Literal:
    """A `metav1.LabelSelector` as Go prints the struct."""
    expressions = selector.get("matchExpressions")
    listed = "[]v1.LabelSelectorRequirement(nil)"
    if expressions:
        parts = (
            f"v1.LabelSelectorRequirement{{Key:{quoted(e.get('key', ''))}, Operator:{quoted(e.get('operator', ''))}, "
            f"Values:{string_list(e.get('values'))}}}"
            for e in expressions
        )
        listed = f"[]v1.LabelSelectorRequirement{{{', '.join(parts)}}}"
    labels = string_map(selector.get("matchLabels"))
    return Literal(f"v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{listed}}}")


def name_warnings(new: Object, old: Object | None) -> Sequence[str]:
    """What a client is told about a name that is no good part of its pods' names; only once, when it is given."""
    messages = dns1123_label(name(new)) if old is None else ()
    if not messages:
        return ()
    return (
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
        f"label is recommended: [{' '.join(messages)}]",
    )


def validate_counts(
    new: Object, *names: str, ready_text: str = "cannot be greater than readyReplicas"
) -> Field:
    """None of the counts of a status is negative or more than `replicas`; available pods are ready ones."""
    status = Field.root(new)["status"]
    replicas = status["replicas"].not_negative().value or 0
    for count in names:
        status[count].not_negative()
    status["observedGeneration"].not_negative()
    status["collisionCount"].not_negative()
    for count in names:
        if (status[count].value or 0) > replicas:
            status[count].invalid("cannot be greater than status.replicas")
    available = status["availableReplicas"]
    if (available.value or 0) > (status["readyReplicas"].value or 0):
        available.invalid(ready_text)
    return status


def collisions_only_grow(status: Field, old: Object) -> None:
    collisions = status["collisionCount"]
    before = (old.get("status") or {}).get("collisionCount")
    if before is not None and (collisions.value is None or collisions.value < before):
        collisions.of(collisions.value or 0).invalid("cannot be decremented")
