"""FlowSchema: which requests belong to which priority level (pkg/apis/flowcontrol, v1.32)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta import conditions
from controlplane.meta.names import dns1123_label, dns1123_subdomain
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, NONE
from controlplane.resources.fieldpath import not_supported
from controlplane.resources.flowcontrol.defaults import MANDATORY, SCHEMA_SPECS
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

DANGLING = "Dangling"
_PRECEDENCE_MAX, _PRECEDENCE_DEFAULT = 10000, 1000
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_SUBJECTS = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}
_SPEC = "io.k8s.api.flowcontrol.v1.FlowSchemaSpec"


def _default(schema: Object) -> None:
    spec = schema["spec"] = schema.get("spec") or {}
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = _PRECEDENCE_DEFAULT
    schema["status"] = schema.get("status") or {}


def _validate(schema: Object) -> Sequence[Cause]:
    field = Field.root(schema)
    spec = field["spec"]
    precedence = spec["matchingPrecedence"]
    number = precedence.value or 0
    if number <= 0:
        precedence.of(number).invalid("must be a positive value")
    if number > _PRECEDENCE_MAX:
        precedence.invalid(f"must not be greater than {_PRECEDENCE_MAX}")
    if number == 1 and name(schema) != "exempt":
        precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1")
    method = spec["distinguisherMethod"]
    if method.value is not None:
        method["type"].of(method["type"].value or " ").one_of("ByNamespace", "ByUser")
    level = spec["priorityLevelConfiguration"]["name"]
    level.required("must reference a priority level").check(dns1123_subdomain)
    for rule in spec["rules"]:
        _rule(rule)
    own = name(schema)
    if own in MANDATORY and not same(spec.value, SCHEMA_SPECS[own]):
        spec.invalid(f"spec of '{own}' must equal the fixed value")
    return field.causes


def _rule(rule: Field) -> None:
    rule["subjects"].required("subjects must contain at least one value")
    for subject in rule["subjects"]:
        _subject(subject)
    if not len(rule["resourceRules"]) and not len(rule["nonResourceRules"]):
        rule.of(None).required("at least one of resourceRules and nonResourceRules has to be non-empty")
    for resources in rule["resourceRules"]:
        _resource_rule(resources)
    for paths in rule["nonResourceRules"]:
        _path_rule(paths)


def _subject(subject: Field) -> None:
    kind = subject["kind"].text
    if kind not in _SUBJECTS:
        subject.fail(not_supported(subject["kind"].path, kind, sorted(_SUBJECTS)))
        return
    own = subject[_SUBJECTS[kind]]
    if own.value is None:
        own.required(f"{_SUBJECTS[kind]} is required when subject kind is '{kind}'")
    else:
        own["name"].required()
        if kind == "ServiceAccount":
            if own["name"].text != "*":
                own["name"].dns_subdomain()
            own["namespace"].required("must specify namespace for service account").dns_label()
    order = ("serviceAccount", "user", "group")
    for other, part in sorted(_SUBJECTS.items(), key=lambda pair: order.index(pair[1])):
        if other != kind and subject[part].value is not None:
            subject[part].forbidden(f"{part} is forbidden when subject kind is not '{other}'")


def _verbs(verbs: Field) -> None:
    verbs.required("verbs must contain at least one value")
    values = verbs.value or []
    if "*" in values:
        _alone(verbs, "verbs")
    elif not set(values) <= set(_VERBS):
        verbs.fail(not_supported(verbs.path, values, _VERBS))


def _alone(listed: Field, others: str) -> None:
    if "*" in (listed.value or ()) and len(listed) > 1:
        listed.invalid(f"if '*' is present, must not specify other {others}")


def _resource_rule(rule: Field) -> None:
    _verbs(rule["verbs"])
    rule["apiGroups"].required("resource rules must supply at least one api group")
    _alone(rule["apiGroups"], "api groups")
    rule["resources"].required("resource rules must supply at least one resource")
    _alone(rule["resources"], "resources")
    namespaces = rule["namespaces"]
    if not len(namespaces) and not rule["clusterScope"].value:
        namespaces.required("resource rules that are not cluster scoped must supply at least one namespace")
    elif "*" in (namespaces.value or ()):
        _alone(namespaces, "namespaces")
    else:
        for namespace in namespaces:
            for message in dns1123_label(namespace.text):
                namespace.invalid(f"each member of this list must be '*' or a DNS-1123 label; {message}")


def _path_rule(rule: Field) -> None:
    _verbs(rule["verbs"])
    paths = rule["nonResourceURLs"]
    paths.required("nonResourceURLs must contain at least one value")
    if "*" in (paths.value or ()):
        _alone(paths, "non-resource URLs")
    else:
        for path in paths:
            _path(path)


def _path(path: Field) -> None:
    text = path.text
    stars = text.count("*")
    if not text:
        path.invalid("must not be empty")
    elif text == "/":
        return
    elif not text.startswith("/"):
        path.invalid("must start with slash")
    elif " " in text:
        path.invalid("must not contain white-space")
    elif "//" in text:
        path.invalid("must not contain double slash")
    elif stars > 1 or (stars == 1 and not text.endswith("/*")):
        path.invalid("wildcard can only do suffix matching")


def validate_conditions(new: Object, old: Object) -> Sequence[Cause]:
    """Of the status of both kinds of this group."""
    field = Field.root(new)
    seen: set[str] = set()
    for condition in field["status"]["conditions"]:
        type_ = condition["type"]
        if type_.text in seen:
            type_.of(type_.text).duplicate()
        seen.add(type_.text)
        type_.required("must not be empty")
    return field.causes


def _row(schema: Object, now: datetime) -> Sequence[object]:
    spec = schema.get("spec") or {}
    dangling = conditions.of(schema, DANGLING)
    return (
        name(schema),
        dig(spec, "priorityLevelConfiguration", "name", default=""),
        spec.get("matchingPrecedence", 0),
        dig(spec, "distinguisherMethod", "type") or NONE,
        age(schema, now),
        "?" if dangling is None else str(dangling.get("status", "")),
    )


FLOW_SCHEMA = Kind(
    group="flowcontrol.apiserver.k8s.io",
    version="v1",
    kind="FlowSchema",
    plural="flowschemas",
    singular="flowschema",
    namespaced=False,
    columns=(
        NAME,
        Column(
            "PriorityLevel",
            documents="io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationReference.name",
        ),
        Column("MatchingPrecedence", documents=f"{_SPEC}.matchingPrecedence"),
        Column("DistinguisherMethod", documents=f"{_SPEC}.distinguisherMethod"),
        AGE,
        Column("MissingPL", description="references a broken or non-existent PriorityLevelConfiguration"),
    ),
    row=_row,
    default=_default,
    validate=_validate,
    validate_status=validate_conditions,
    status=True,
    status_metadata=(),
    generation=True,
    fields=selectable_fields(),
)
