"""IngressClass: names the controller that serves the Ingresses of the class (pkg/apis/networking, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1123_label, domain_prefixed_path
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE
from controlplane.resources.kind import Column, Kind
from controlplane.resources.networking.ingress import typed_reference
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
_CONTROLLER_MAX = 250


def _default(ingress_class: Object) -> None:
    spec = ingress_class["spec"] = ingress_class.get("spec") or {}
    parameters = spec.get("parameters")
    if parameters is not None and parameters.get("scope") is None:
        parameters["scope"] = "Cluster"


def _validate(ingress_class: Object) -> Sequence[Cause]:
    field = Field.root(ingress_class)
    spec = field["spec"]
    controller = spec["controller"].required().max_bytes(_CONTROLLER_MAX)
    controller.check(domain_prefixed_path)
    if spec["parameters"].value is not None:
        _parameters(spec["parameters"])
    return field.causes


def _parameters(parameters: Field) -> None:
    typed_reference(parameters)
    scope, namespace = parameters["scope"], parameters["namespace"]
    if scope.value is None:
        scope.required()
    elif scope.value == "Namespace":
        if namespace.value is None:
            namespace.required("`parameters.scope` is set to 'Namespace'")
        else:
            for message in dns1123_label(namespace.text):
                namespace.invalid(message)
    elif scope.value == "Cluster":
        if namespace.value is not None:
            namespace.forbidden("`parameters.scope` is set to 'Cluster'")
    else:
        scope.of(scope.value or " ").one_of("Cluster", "Namespace")


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    field["spec"]["controller"].unchanged(Field.root(old)["spec"]["controller"])
    return field.causes


def _row(ingress_class: Object, now: datetime) -> Sequence[object]:
    parameters = dig(ingress_class, "spec", "parameters")
    shown = NONE
    if parameters:
        group = f".{parameters['apiGroup']}" if parameters.get("apiGroup") is not None else ""
        shown = f"{parameters.get('kind', '')}{group}/{parameters.get('name', '')}"
    controller = dig(ingress_class, "spec", "controller", default="")
    return name(ingress_class), controller, shown, age(ingress_class, now)


INGRESS_CLASS = Kind(
    group="networking.k8s.io",
    version="v1",
    kind="IngressClass",
    plural="ingressclasses",
    singular="ingressclass",
    namespaced=False,
    columns=(
        NAME,
        Column("Controller", description="Controller that is responsible for handling this class"),
        Column("Parameters", description="A reference to a resource with additional parameters"),
        AGE,
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_update=_validate_update,
    generation=True,
    fields=selectable_fields(),
)
