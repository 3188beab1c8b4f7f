"""What says which requests a webhook or policy is for: rules, selectors and match conditions; defaults and validation.

Texts and paths are those of pkg/apis/admissionregistration/validation (v1.32). Pure.
"""

from __future__ import annotations

from controlplane.errors import Object
from controlplane.meta.names import dns1123_subdomain
from controlplane.resources.admissionregistration.expressions import Compiler, compile_error
from controlplane.resources.fieldpath import string_list
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
MAX_CONDITIONS = 64


def default_rules(rules: list[Object] | None) -> None:
    for rule in rules or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"


def default_match_resources(match: Object) -> None:
    """Defaults of VAP's matchConstraints and of a binding's matchResources."""
    if not match.get("matchPolicy"):
        match["matchPolicy"] = "Equivalent"
    for field in ("namespaceSelector", "objectSelector"):
        if match.get(field) is None:
            match[field] = {}
    default_rules(match.get("resourceRules"))
    default_rules(match.get("excludeResourceRules"))


def validate_rules(rules: Field) -> None:
    for rule in rules:
        _validate_rule(rule)


def _validate_rule(rule: Field) -> None:
    operations = rule["operations"].required()
    _lonely_star(operations, "operations")
    for operation in operations:
        if operation.value not in OPERATIONS:
            operation.of(operation.text or "").one_of(*OPERATIONS)
    groups = rule["apiGroups"].required()
    _lonely_star(groups, "API groups")
    versions = rule["apiVersions"].required()
    _lonely_star(versions, "API versions")
    for version in versions:
        version.required()
    _validate_resources(rule["resources"])
    rule["scope"].one_of("*", "Cluster", "Namespaced")


def _lonely_star(values: Field, what: str) -> None:
    if len(values) > 1 and "*" in values.value:
        values.of(string_list(values.value)).invalid(f"if '*' is present, must not specify other {what}")


def _validate_resources(resources: Field) -> None:
    resources.required()
    whole: set[str] = set()
    parts: set[str] = set()
    values = [item.text for item in resources]
    for item in resources:
        if not item.required().present:
            continue
        resource, slash, subresource = item.text.partition("/")
        if not slash:
            continue
        if resource in whole:
            item.invalid(f"if '{resource}/*' is present, must not specify {item.text}")
        if subresource in parts:
            item.invalid(f"if '*/{subresource}' is present, must not specify {item.text}")
        if subresource == "*":
            whole.add(resource)
        if resource == "*":
            parts.add(subresource)
    if len(values) > 1 and "*/*" in values:
        resources.of(string_list(values)).invalid("if '*/*' is present, must not specify other resources")
    if "*" in values and any(value != "*" and "/" not in value for value in values):
        resources.of(string_list(values)).invalid(
            "if '*' is present, must not specify other resources without subresources"
        )


def validate_match_resources(match: Field) -> None:
    match["matchPolicy"].required().one_of("Equivalent", "Exact")
    for name in ("namespaceSelector", "objectSelector"):
        selector = match[name]
        if selector.value is None:
            selector.required()
        else:
            validate_label_selector(selector)
    for name in ("resourceRules", "excludeResourceRules"):
        for rule in match[name]:
            seen: set[str] = set()
            for resource_name in rule["resourceNames"]:
                for message in path_segment(resource_name.text):
                    resource_name.invalid(message)
                if resource_name.text in seen:
                    resource_name.duplicate()
                seen.add(resource_name.text)
            _validate_rule(rule)


def path_segment(text: str) -> list[str]:
    """What keeps a name from being one segment of a path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{char}'" for char in ("/", "%") if char in text]


def validate_conditions(conditions: Field, compiler: Compiler) -> None:
    conditions.max_items(MAX_CONDITIONS)
    seen: set[str] = set()
    for condition in list(conditions)[:MAX_CONDITIONS]:
        expression = condition["expression"]
        text = expression.text.strip()
        if not text:
            expression.of(None).required()
        elif fault := compile_error(text, compiler):
            expression.of(text).invalid(fault)
        name = condition["name"].required().qualified_name()
        if name.text and name.text in seen:
            name.duplicate()
        seen.add(name.text)


def fully_qualified(name: Field) -> None:
    """A domain name of three segments at least."""
    if not name.required().present:
        return
    if messages := dns1123_subdomain(name.text):
        name.invalid(",".join(messages))
    elif name.text.count(".") < 2:
        name.invalid("should be a domain with at least three segments separated by dots")
