"""DaemonSet: defaults, rules, columns (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.objects import annotations as annotations_of
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.apps.rules import (
    REVISION_HISTORY,
    always_and_forever,
    amount,
    at_most_all,
    collisions_only_grow,
    count_or_percent,
    default_workload,
    fill,
    go_pointer,
    go_selector,
    labels_do_not_match,
    selector_column,
    selector_unchanged,
    shown_plainly,
)
from controlplane.resources.cells import (
    AGE,
    CONTAINERS,
    IMAGES,
    NAME,
    containers_and_images,
    format_labels,
    format_selector,
    number,
)
from controlplane.resources.fieldpath import Literal, not_supported, quoted
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""Annotation that counts the changes of the template; the server keeps it."""

_API = "io.k8s.api.apps.v1"
_ALWAYS_SHOWN = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")


def _default(daemon_set: Object) -> None:
    spec = default_workload(daemon_set)
    fill(spec, "updateStrategy", {})
    strategy = spec["updateStrategy"]
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        fill(strategy, "rollingUpdate", {})
        fill(strategy["rollingUpdate"], "maxUnavailable", 1)
        fill(strategy["rollingUpdate"], "maxSurge", 0)
    fill(spec, "revisionHistoryLimit", REVISION_HISTORY)


def _prepare_create(daemon_set: Object) -> None:
    daemon_set["status"] = dict.fromkeys(_ALWAYS_SHOWN, 0)
    _set_template_generation(daemon_set, 1)


def _prepare_update(new: Object, old: Object) -> None:
    """A client cannot set the template's generation: it grows by one with each other template."""
    text = annotations_of(old).get(TEMPLATE_GENERATION, "0")
    before = int(text) if text.isdecimal() else 0
    changed = not same((new.get("spec") or {}).get("template"), (old.get("spec") or {}).get("template"))
    _set_template_generation(new, before + changed)


def _set_template_generation(daemon_set: Object, generation: int) -> None:
    metadata = daemon_set["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TEMPLATE_GENERATION: str(generation)}


def _validate(daemon_set: Object) -> Sequence[Cause]:
    field = Field.root(daemon_set)
    spec = field["spec"]
    selector, template = spec["selector"], spec["template"]
    validate_label_selector(selector)
    if not _matches(selector.value, template["metadata"]["labels"].value or {}):
        labels_do_not_match(template)
    if (
        selector.value is not None
        and not selector["matchLabels"].value
        and not selector["matchExpressions"].value
    ):
        selector.of(go_selector(selector.value)).invalid("empty selector is invalid for daemonset")
    validate_template(template)
    always_and_forever(template, "DaemonSet")
    spec["minReadySeconds"].not_negative()
    _strategy(spec["updateStrategy"])
    spec["revisionHistoryLimit"].not_negative()
    return field.causes


def _matches(selector: Object | None, labels: Object) -> bool:
    """A selector that is none at all matches nothing; one that cannot be parsed has been blamed already."""
    if selector is None:
        return False
    try:
        return LabelSelector.from_object(selector).matches(labels)
    except ValueError:
        return True


def _strategy(strategy: Field) -> None:
    rolling = strategy["rollingUpdate"]
    match strategy["type"].value:
        case "OnDelete":
            pass
        case "RollingUpdate":
            unavailable, surge = rolling["maxUnavailable"], rolling["maxSurge"]
            count_or_percent(unavailable)
            count_or_percent(surge)
            at_most_all(unavailable)
            at_most_all(surge)
            if amount(unavailable.value) and amount(surge.value):
                shown_plainly(surge).invalid("may not be set when maxUnavailable is non-zero")
            elif not amount(unavailable.value) and not amount(surge.value):
                unavailable.of(None).required("cannot be 0 when maxSurge is 0")
        case _:
            pointer = go_pointer("apps.RollingUpdateDaemonSet", rolling.value)
            shown = Literal(
                f"apps.DaemonSetUpdateStrategy{{Type:{quoted(strategy['type'].text)}, RollingUpdate:{pointer}}}"
            )
            strategy.fail(not_supported(strategy.path, shown, ["RollingUpdate", "OnDelete"]))


def _validate_status(new: Object, old: Object) -> Sequence[Cause]:
    status = Field.root(new)["status"]
    for count in (
        *_ALWAYS_SHOWN,
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ):
        status[count].not_negative()
    collisions_only_grow(status, old)
    return status.causes


def _row(daemon_set: Object, now: datetime) -> Sequence[object]:
    spec, status = daemon_set.get("spec") or {}, daemon_set.get("status") or {}
    template = spec.get("template") or {}
    return (
        name(daemon_set),
        number(status.get("desiredNumberScheduled")),
        number(status.get("currentNumberScheduled")),
        number(status.get("numberReady")),
        number(status.get("updatedNumberScheduled")),
        number(status.get("numberAvailable")),
        format_labels((template.get("spec") or {}).get("nodeSelector")),
        age(daemon_set, now),
        *containers_and_images(template),
        format_selector(spec.get("selector")),
    )


def _count(name_: str, field: str) -> Column:
    return Column(name_, type="integer", documents=f"{_API}.DaemonSetStatus.{field}")


DAEMON_SET = Kind(
    group="apps",
    version="v1",
    kind="DaemonSet",
    plural="daemonsets",
    singular="daemonset",
    namespaced=True,
    short_names=("ds",),
    categories=("all",),
    columns=(
        NAME,
        _count("Desired", "desiredNumberScheduled"),
        _count("Current", "currentNumberScheduled"),
        _count("Ready", "numberReady"),
        _count("Up-to-date", "updatedNumberScheduled"),
        _count("Available", "numberAvailable"),
        Column("Node Selector", documents="io.k8s.api.core.v1.PodSpec.nodeSelector"),
        AGE,
        CONTAINERS,
        IMAGES,
        selector_column(f"{_API}.DaemonSetSpec"),
    ),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    validate_update=selector_unchanged,
    validate_status=_validate_status,
    status=True,
    generation=True,
    fields=selectable_fields(),
)
