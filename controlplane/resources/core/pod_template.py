"""PodTemplate: a pod template as an object of its own, which nothing in the cluster acts upon (v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.objects import dig, name
from controlplane.resources.apps.rules import fill
from controlplane.resources.cells import NAME, containers_and_images, format_labels
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.defaults import default_template
from controlplane.resources.podspec.spec import validate_template
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields


def _default(template: Object) -> None:
    fill(template, "template", {})
    default_template(template["template"])


def _validate(template: Object) -> Sequence[Cause]:
    field = Field.root(template)
    validate_template(field["template"])
    return field.causes


def _row(template: Object, now: datetime) -> Sequence[object]:
    labels = dig(template, "template", "metadata", "labels", default={})
    return name(template), *containers_and_images(template.get("template")), format_labels(labels)


POD_TEMPLATE = Kind(
    group="",
    version="v1",
    kind="PodTemplate",
    plural="podtemplates",
    singular="podtemplate",
    namespaced=True,
    columns=(
        NAME,
        Column("Containers", description="Names of each container in the template."),
        Column("Images", description="Images referenced by each container in the template."),
        Column("Pod Labels", description="The labels for the pod template."),
    ),
    row=_row,
    default=_default,
    validate=_validate,
    generation=True,
    fields=selectable_fields(),
)
