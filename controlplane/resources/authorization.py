"""authorization.k8s.io/v1: the reviews that answer what somebody may do. They can be created and nothing else.

Answered by `controlplane.apiserver.handlers.access_reviews`; never stored. Validation is upstream's
(`pkg/apis/authorization/validation`, v1.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.errors import Cause, Object
from controlplane.resources.fieldpath import Literal
from controlplane.resources.kind import Kind
from controlplane.resources.rules import Field, same

GROUP = "authorization.k8s.io"
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_NULL = Literal('"null"')


def _review(kind: str, plural: str, *, namespaced: bool = False) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=plural,
        singular=plural.removesuffix("s"),
        namespaced=namespaced,
        verbs=("create",),
    )


SUBJECT_ACCESS_REVIEW = _review("SubjectAccessReview", "subjectaccessreviews")
LOCAL_SUBJECT_ACCESS_REVIEW = _review(
    "LocalSubjectAccessReview", "localsubjectaccessreviews", namespaced=True
)
SELF_SUBJECT_ACCESS_REVIEW = _review("SelfSubjectAccessReview", "selfsubjectaccessreviews")
SELF_SUBJECT_RULES_REVIEW = _review("SelfSubjectRulesReview", "selfsubjectrulesreviews")


def validate_access_review(review: Object, *, subject: bool = True, local: bool = False) -> Sequence[Cause]:
    """What is wrong with a SubjectAccessReview, a SelfSubjectAccessReview (`subject` False), or a
    LocalSubjectAccessReview (`local`)."""
    field = Field.root(review)
    spec = field["spec"]
    resource, path = spec["resourceAttributes"], spec["nonResourceAttributes"]
    if resource.value is not None and path.value is not None:
        path.invalid("cannot be specified in combination with resourceAttributes")
    if resource.value is None and path.value is None:
        resource.of(_NULL).invalid(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    if subject and not spec["user"].present and not spec["groups"].value:
        spec["user"].invalid("at least one of user or group must be specified")
    if isinstance(resource.value, Mapping):
        _selector(resource["fieldSelector"])
        _selector(resource["labelSelector"])
    left = {
        key: value
        for key, value in review["metadata"].items()
        if key not in ("managedFields", "creationTimestamp") and not (local and key == "namespace")
    }
    if not same(left, {}):
        field["metadata"].of(Literal(str(left))).invalid(
            "must be empty except for namespace" if local else "must be empty"
        )
    if local:
        _local(review, field)
    return field.causes


def _local(review: Object, field: Field) -> None:
    resource = field["spec"]["resourceAttributes"]
    if resource.value is not None:
        named = Field(resource["namespace"].text, "spec.resourceAttributes.namespace", field.causes)
        if named.text != review["metadata"].get("namespace", ""):
            named.invalid("must match metadata.namespace")
    path = field["spec"]["nonResourceAttributes"]
    if path.value is not None:
        path.invalid("disallowed on this kind of request")


def _selector(selector: Field) -> None:
    """A selector is given raw or taken apart, not both."""
    if selector.value is None:
        return
    raw, requirements = selector["rawSelector"], selector["requirements"]
    if raw.present and requirements.value:
        raw.invalid("may not specified at the same time as requirements")
    if not raw.present and not requirements.value:
        requirements.required(f"when {selector.path} is specified, requirements or rawSelector is required")
    for requirement in requirements:
        requirement["key"].required("must be specified")
        operator, values = requirement["operator"], requirement["values"]
        if operator.value in ("In", "NotIn"):
            values.required("must be specified when `operator` is 'In' or 'NotIn'")
        elif operator.value in ("Exists", "DoesNotExist"):
            values.absent("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif not operator.present:
            operator.of("").invalid("not a valid selector operator")
