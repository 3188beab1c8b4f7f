"""ValidatingAdmissionPolicy and ValidatingAdmissionPolicyBinding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from controlplane.cel import CelCompileError
from controlplane.errors import Cause, Object
from controlplane.meta.names import dns1035_label, dns1123_subdomain, qualified_name
from controlplane.meta.objects import dig, name
from controlplane.meta.timestamps import age
from controlplane.resources import fieldpath
from controlplane.resources.admissionregistration.expressions import (
    BOOLEAN,
    TEXT,
    TEXT_OR_NULL,
    Compiler,
    compile_error,
)
from controlplane.resources.admissionregistration.matching import (
    default_match_resources,
    path_segment,
    validate_conditions,
    validate_match_resources,
)
from controlplane.resources.cells import AGE, NAME, UNSET, format_selector
from controlplane.resources.fieldpath import string_list
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
MAX_AUDIT_ANNOTATIONS = 20
MAX_VALUE_EXPRESSION = 5 * 1024
_IDENTIFIER = re.compile(r"^[_a-zA-Z][_a-zA-Z0-9]*$")
_RESERVED = frozenset(
    (
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return", "var", "void", "while",
    )
)  # fmt: skip
_NOTHING_TO_DO = "validations or auditAnnotations must contain at least one item"


def _default_policy(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    if not spec.get("failurePolicy"):
        spec["failurePolicy"] = "Fail"
    if spec.get("matchConstraints") is not None:
        default_match_resources(spec["matchConstraints"])


def _default_binding(binding: Object) -> None:
    match = binding.setdefault("spec", {}).get("matchResources")
    if match is not None:
        default_match_resources(match)


def _validate_policy(policy: Object) -> Sequence[Cause]:
    field = Field.root(policy)
    spec = field["spec"]
    spec["failurePolicy"].required().one_of("Fail", "Ignore")
    has_params = spec["paramKind"].value is not None
    if has_params:
        _validate_param_kind(spec["paramKind"])
    constraints = spec["matchConstraints"]
    if constraints.value is None:
        constraints.required()
    else:
        validate_match_resources(constraints)
        constraints["resourceRules"].required()
    validate_conditions(spec["matchConditions"], Compiler(params=has_params))
    compiler = Compiler(params=has_params)
    if len(spec["variables"]):
        compiler.compose()
    for variable in spec["variables"]:
        _validate_variable(variable, compiler)
    annotations = spec["auditAnnotations"]
    if not len(spec["validations"]) and not len(annotations):
        spec["validations"].of(None).required(_NOTHING_TO_DO)
        annotations.of(None).required(_NOTHING_TO_DO)
    for validation in spec["validations"]:
        _validate_validation(validation, compiler)
    _validate_annotations(annotations, str(dig(policy, "metadata", "name", default="")), compiler)
    return field.causes


def _validate_param_kind(kind: Field) -> None:
    version = kind["apiVersion"]
    if version.required().present:
        group, slash, bare = version.text.rpartition("/")
        if "/" in group:
            version.invalid(f"unexpected GroupVersion string: {version.text}")
        else:
            if slash and (messages := dns1123_subdomain(group)):
                version.of(group).invalid(",".join(messages))
            if not bare:
                version.invalid("version must be specified")
            elif messages := dns1035_label(bare):
                version.of(bare).invalid(",".join(messages))
    title = kind["kind"]
    if title.required().present and (messages := dns1035_label(title.text.lower())):
        title.invalid("may have mixed case, but should otherwise match: " + ",".join(messages))


def _validate_variable(variable: Field, compiler: Compiler) -> None:
    title, expression = variable["name"], variable["expression"]
    if not title.text.strip():
        title.of(None).required("name is not specified")
    elif not _IDENTIFIER.match(title.text) or title.text in _RESERVED:
        title.invalid("name is not a valid CEL identifier")
    if not expression.text.strip():
        expression.of(None).required("expression is not specified")
        return
    try:
        compiler.declare(title.text, compiler.compile(expression.text, None).result)
    except CelCompileError as fault:
        expression.invalid(str(fault))


def _validate_validation(validation: Field, compiler: Compiler) -> None:
    expression = validation["expression"]
    if not expression.text.strip():
        expression.of(None).required("expression is not specified")
    elif fault := compile_error(expression.text, compiler, BOOLEAN):
        expression.invalid(fault)
    message = validation["messageExpression"]
    if message.text and not message.text.strip():
        message.invalid("must be non-empty if specified")
    elif message.text:
        try:
            compiler.compile(message.text, TEXT, authorizer=False)
        except CelCompileError as fault:
            message.invalid(str(fault))
    text = validation["message"]
    if text.text and not text.text.strip():
        text.invalid("message must be non-empty if specified")
    elif "\n" in text.text.strip() or "\r" in text.text.strip():
        text.invalid("message must not contain line breaks")
    validation["reason"].one_of(*REASONS)


def _validate_annotations(annotations: Field, policy: str, compiler: Compiler) -> None:
    if len(annotations) > MAX_AUDIT_ANNOTATIONS:
        annotations.of(fieldpath.Literal("[]")).invalid(
            f"must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations"
        )
    seen: set[str] = set()
    for annotation in annotations:
        key, value = annotation["key"], annotation["valueExpression"]
        if not policy:
            key.invalid("requires metadata.name be non-empty")
        else:
            for text in qualified_name(f"{policy}/{key.text}"):
                key.of(f"{policy}/{key.text}").invalid(text)
        text = value.text.strip()
        if not text:
            value.of(None).required("valueExpression is not specified")
        elif len(text.encode()) > MAX_VALUE_EXPRESSION:
            value.of(None).required(f"must not exceed {MAX_VALUE_EXPRESSION} bytes in length")
        elif fault := compile_error(text, compiler, TEXT_OR_NULL):
            value.invalid(fault)
        if key.text in seen:
            key.duplicate()
        seen.add(key.text)


def _validate_binding(binding: Object) -> Sequence[Cause]:
    field = Field.root(binding)
    spec = field["spec"]
    spec["policyName"].required().dns_subdomain()
    if spec["paramRef"].value is not None:
        _validate_param_ref(spec["paramRef"])
    match = spec["matchResources"]
    if match.value is not None:
        # The path is misspelt upstream.
        validate_match_resources(Field(match.value, "spec.matchResouces", field.causes))
    _validate_actions(spec["validationActions"])
    return field.causes


def _validate_param_ref(ref: Field) -> None:
    title, selector = ref["name"], ref["selector"]
    both = "name and selector are mutually exclusive"
    if title.text:
        for message in path_segment(title.text):
            title.invalid(message)
        if selector.value is not None:
            title.forbidden(both)
    if selector.value is not None:
        validate_label_selector(selector)
        if title.text:
            selector.forbidden(both)
    if not title.text and selector.value is None:
        ref.of(None).required("one of name or selector must be specified")
    ref["parameterNotFoundAction"].required().one_of("Allow", "Deny")


def _validate_actions(actions: Field) -> None:
    seen: set[str] = set()
    for action in actions:
        action.of(action.text).one_of("Audit", "Deny", "Warn")
        if action.text in seen:
            action.duplicate()
        seen.add(action.text)
    if {"Deny", "Warn"} <= seen:
        actions.of(string_list(actions.value)).invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
    if not seen:
        actions.of(None).required("at least one validation action is required")


def _policy_row(policy: Object, now: datetime) -> Sequence[object]:
    kind = dig(policy, "spec", "paramKind")
    params = f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET
    return name(policy), len(dig(policy, "spec", "validations", default=())), params, age(policy, now)


def _binding_row(binding: Object, now: datetime) -> Sequence[object]:
    ref = dig(binding, "spec", "paramRef")
    params = UNSET
    if ref and ref.get("name"):
        params = f"{ref['namespace']}/{ref['name']}" if ref.get("namespace") else ref["name"]
    elif ref and ref.get("selector") is not None:
        params = format_selector(ref["selector"])
    return name(binding), dig(binding, "spec", "policyName", default=""), params, age(binding, now)


VALIDATING_ADMISSION_POLICY = Kind(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicy",
    plural="validatingadmissionpolicies",
    singular="validatingadmissionpolicy",
    namespaced=False,
    categories=("api-extensions",),
    columns=(
        NAME,
        Column(
            "Validations",
            type="integer",
            description="Validations indicates the number of validation rules defined in this configuration",
        ),
        Column(
            "ParamKind",
            description="ParamKind specifies the kind of resources used to parameterize this policy",
        ),
        AGE,
    ),
    row=_policy_row,
    default=_default_policy,
    validate=_validate_policy,
    status=True,
    status_metadata=(),
    generation=True,
    unconditional_update=False,
    fields=selectable_fields(),
)

VALIDATING_ADMISSION_POLICY_BINDING = Kind(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingAdmissionPolicyBinding",
    plural="validatingadmissionpolicybindings",
    singular="validatingadmissionpolicybinding",
    namespaced=False,
    categories=("api-extensions",),
    columns=(
        NAME,
        Column(
            "PolicyName",
            description="PolicyName indicates the policy definition which the policy binding binded to",
        ),
        Column(
            "ParamRef", description="ParamRef indicates the param resource which sets the configration param"
        ),
        AGE,
    ),
    row=_binding_row,
    default=_default_binding,
    validate=_validate_binding,
    generation=True,
    unconditional_update=False,
    fields=selectable_fields(),
)
