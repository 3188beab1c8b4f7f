"""Rules for where a pod may run: tolerations, affinity, spreading, gates; and for label selectors. Pure."""

from __future__ import annotations

import re

from controlplane.meta.names import dns1123_subdomain, label_value
from controlplane.resources.rules import Field

TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_INTEGER = re.compile(r"[+-]?\d+").fullmatch


def validate_tolerations(tolerations: Field) -> None:
    for toleration in tolerations:
        key, operator = toleration["key"], toleration["operator"]
        key.qualified_name()
        if not key.present and operator.value != "Exists":
            operator.invalid(
                'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            )
        if toleration["tolerationSeconds"].value is not None and toleration["effect"].value != "NoExecute":
            toleration["effect"].invalid("effect must be 'NoExecute' when `tolerationSeconds` is set")
        if operator.text in ("", "Equal"):
            messages = label_value(toleration["value"].text)
            if messages:
                operator.of(toleration["value"].text).invalid(";".join(messages))
        elif operator.value == "Exists":
            if toleration["value"].present:
                operator.of(toleration.value).invalid("value must be empty when `operator` is 'Exists'")
        else:
            operator.one_of("Equal", "Exists")
        toleration["effect"].one_of(*TAINT_EFFECTS)


def validate_label_selector(selector: Field) -> None:
    """A `metav1.LabelSelector`."""
    selector["matchLabels"].labels()
    for expression in selector["matchExpressions"]:
        values = expression["values"]
        match expression["operator"].value:
            case "In" | "NotIn":
                values.required("must be specified when `operator` is 'In' or 'NotIn'")
            case "Exists" | "DoesNotExist":
                values.absent("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            case _:
                expression["operator"].invalid("not a valid selector operator")
        expression["key"].required().qualified_name()
        for value in values:
            value.check(label_value)


def validate_affinity(affinity: Field) -> None:
    node = affinity["nodeAffinity"]
    needed = node["requiredDuringSchedulingIgnoredDuringExecution"]
    if needed.value is not None:
        validate_node_selector(needed)
    for preference in node["preferredDuringSchedulingIgnoredDuringExecution"]:
        preference["weight"].of(preference["weight"].value or 0).between(1, 100)
        _node_term(preference["preference"])
    for name in ("podAffinity", "podAntiAffinity"):
        for term in affinity[name]["requiredDuringSchedulingIgnoredDuringExecution"]:
            _pod_term(term)
        for preference in affinity[name]["preferredDuringSchedulingIgnoredDuringExecution"]:
            preference["weight"].of(preference["weight"].value or 0).between(1, 100)
            _pod_term(preference["podAffinityTerm"])


def validate_node_selector(selector: Field) -> None:
    """A `v1.NodeSelector`: one of its terms must match."""
    selector["nodeSelectorTerms"].required("must have at least one node selector term")
    for term in selector["nodeSelectorTerms"]:
        _node_term(term)


def _node_term(term: Field) -> None:
    for expression in term["matchExpressions"]:
        values = expression["values"]
        match expression["operator"].value:
            case "In" | "NotIn":
                values.required("must be specified when `operator` is 'In' or 'NotIn'")
            case "Exists" | "DoesNotExist":
                values.absent("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            case "Gt" | "Lt":
                if len(values) != 1:
                    values.of(None).required("must be specified single value when `operator` is 'Lt' or 'Gt'")
                elif not _INTEGER(str(values.value[0])):
                    values.invalid("must be an integer when `operator` is 'Lt' or 'Gt'")
            case _:
                expression["operator"].invalid("not a valid selector operator")
        expression["key"].required().qualified_name()
    for field in term["matchFields"]:
        _node_field(field)


def _node_field(requirement: Field) -> None:
    """The one field nodes may be selected by is their name."""
    key, operator, values = requirement["key"], requirement["operator"], requirement["values"]
    if operator.value not in ("In", "NotIn"):
        operator.invalid("not a valid selector operator")
    elif len(values) != 1:
        values.of(None).required(
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        )
    if key.value != "metadata.name":
        key.invalid("not a valid field selector key")
        return
    for value in values:
        for message in dns1123_subdomain(value.text):
            value.invalid(message)


def _pod_term(term: Field) -> None:
    validate_label_selector(term["labelSelector"])
    validate_label_selector(term["namespaceSelector"])
    for namespace in term["namespaces"]:
        namespace.dns_label()
    term["topologyKey"].required("can not be empty").qualified_name()


def validate_topology_spread(constraints: Field) -> None:
    seen: set[tuple[str, str]] = set()
    for constraint in constraints:
        skew = constraint["maxSkew"]
        skew.of(skew.value or 0).positive()
        constraint["topologyKey"].required("can not be empty").qualified_name()
        constraint["whenUnsatisfiable"].required().one_of("DoNotSchedule", "ScheduleAnyway")
        pair = (constraint["topologyKey"].text, constraint["whenUnsatisfiable"].text)
        if pair in seen:
            constraint.of(f"{{{pair[0]}, {pair[1]}}}").duplicate()
        seen.add(pair)
        minimum = constraint["minDomains"]
        minimum.positive()
        if minimum.value is not None and constraint["whenUnsatisfiable"].value != "DoNotSchedule":
            minimum.invalid(
                "can only use minDomains if whenUnsatisfiable=DoNotSchedule, "
                f"not {constraint['whenUnsatisfiable'].text}"
            )
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            constraint[name].one_of("Honor", "Ignore")
        validate_label_selector(constraint["labelSelector"])
