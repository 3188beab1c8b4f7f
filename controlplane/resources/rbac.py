"""rbac.authorization.k8s.io/v1: Role, ClusterRole and their bindings. Evaluating them is the API server's.

Rules and texts of `pkg/apis/rbac/validation`, v1.32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from controlplane.errors import Cause, Object
from controlplane.meta.labels import LabelSelector
from controlplane.meta.names import dns1123_subdomain
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME, wide
from controlplane.resources.fieldpath import Literal, not_supported, quoted
from controlplane.resources.kind import Column, Kind
from controlplane.resources.podspec.scheduling import validate_label_selector
from controlplane.resources.rules import Field
from controlplane.resources.selectable import selectable_fields

GROUP = "rbac.authorization.k8s.io"
_SUBJECT_KINDS = ("ServiceAccount", "User", "Group")


def path_segment(text: str) -> list[str]:
    """Role names may be anything that can stand in a path."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    if not text.isascii():
        return ["may not contain characters outside ASCII"]  # the store's keys cannot
    return [f"may not contain '{character}'" for character in "/%" if character in text]


def _default_role(role: Object) -> None:
    role.setdefault("rules", None)


def _default_binding(binding: Object) -> None:
    reference = binding.setdefault("roleRef", {})
    if isinstance(reference, dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in binding.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = GROUP
    if not binding.get("subjects"):
        binding.pop("subjects", None)


def _validate_role(role: Object) -> Sequence[Cause]:
    field = Field.root(role)
    _rules(field["rules"], namespaced=True)
    return field.causes


def _validate_cluster_role(role: Object) -> Sequence[Cause]:
    field = Field.root(role)
    _rules(field["rules"], namespaced=False)
    aggregation = field["aggregationRule"]
    if aggregation.value is not None:
        selectors = aggregation["clusterRoleSelectors"]
        selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil")
        for selector in selectors:
            validate_label_selector(selector)
    return field.causes


def _rules(rules: Field, *, namespaced: bool) -> None:
    for rule in rules:
        rule["verbs"].required("verbs must contain at least one value")
        urls = rule["nonResourceURLs"]
        if urls.value:
            if namespaced:
                urls.invalid("namespaced rules cannot apply to non-resource URLs")
            if any(rule[key].value for key in ("apiGroups", "resources", "resourceNames")):
                urls.invalid("rules cannot apply to both regular resources and non-resource URLs")
            continue
        rule["apiGroups"].required("resource rules must supply at least one api group")
        rule["resources"].required("resource rules must supply at least one resource")


def _validate_binding(binding: Object) -> Sequence[Cause]:
    return _binding(binding, ("Role", "ClusterRole"), namespaced=True)


def _validate_cluster_binding(binding: Object) -> Sequence[Cause]:
    return _binding(binding, ("ClusterRole",), namespaced=False)


def _binding(binding: Object, kinds: Sequence[str], *, namespaced: bool) -> Sequence[Cause]:
    field = Field.root(binding)
    reference = field["roleRef"]
    _supported(reference["apiGroup"], (GROUP,))
    _supported(reference["kind"], kinds)
    reference["name"].required().check(path_segment)
    for subject in field["subjects"]:
        _subject(subject, namespaced=namespaced)
    return field.causes


def _supported(field: Field, choices: Sequence[str]) -> None:
    """Unlike `one_of`: nothing is no choice either, unless it is listed."""
    if field.text not in choices:
        field.fail(not_supported(field.path, field.text, choices))


def _subject(subject: Field, *, namespaced: bool) -> None:
    subject["name"].required()
    match subject["kind"].text:
        case "ServiceAccount":
            subject["name"].check(dns1123_subdomain)
            _supported(subject["apiGroup"], ("",))
            if not namespaced:
                subject["namespace"].required()
        case "User" | "Group" as kind:
            if not subject["name"].present:
                subject["name"].of("").invalid(f"{kind.lower()} name cannot be empty")
            _supported(subject["apiGroup"], (GROUP,))
        case _:
            _supported(subject["kind"], _SUBJECT_KINDS)


def _validate_binding_update(new: Object, old: Object) -> Sequence[Cause]:
    field = Field.root(new)
    keys = ("apiGroup", "kind", "name")
    reference, before = new.get("roleRef") or {}, old.get("roleRef") or {}
    if any(reference.get(key, "") != before.get(key, "") for key in keys):
        parts = ", ".join(
            f"{word}:{quoted(reference.get(key, ''))}"
            for word, key in zip(("APIGroup", "Kind", "Name"), keys, strict=True)
        )
        field["roleRef"].of(Literal(f"rbac.RoleRef{{{parts}}}")).invalid("cannot change roleRef")
    return field.causes


def _binding_row(binding: Object, now: datetime) -> Sequence[object]:
    reference = binding.get("roleRef") or {}
    by_kind: dict[str, list[str]] = {kind: [] for kind in _SUBJECT_KINDS}
    for subject in binding.get("subjects") or ():
        text = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            text = f"{subject.get('namespace', '')}/{text}"
        by_kind.setdefault(subject.get("kind", ""), []).append(text)
    return (
        name(binding),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        age(binding, now),
        ", ".join(by_kind["User"]),
        ", ".join(by_kind["Group"]),
        ", ".join(by_kind["ServiceAccount"]),
    )


def _role_row(role: Object, now: datetime) -> Sequence[object]:
    return name(role), role["metadata"].get("creationTimestamp")


_ROLE_COLUMNS = (NAME, Column("Created At", type="date", documents=AGE.documents))

_BINDING_COLUMNS = (
    NAME,
    Column("Role", description="The role the subjects are given."),
    AGE,
    wide("Users", "Users in the roleBinding"),
    wide("Groups", "Groups in the roleBinding"),
    wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
)

ROLE = Kind(
    group=GROUP,
    version="v1",
    kind="Role",
    plural="roles",
    singular="role",
    namespaced=True,
    columns=_ROLE_COLUMNS,
    row=_role_row,
    default=_default_role,
    validate=_validate_role,
    create_on_update=True,
    validate_name=path_segment,
    fields=selectable_fields(),
)

CLUSTER_ROLE = Kind(
    group=GROUP,
    version="v1",
    kind="ClusterRole",
    plural="clusterroles",
    singular="clusterrole",
    namespaced=False,
    columns=_ROLE_COLUMNS,
    row=_role_row,
    default=_default_role,
    validate=_validate_cluster_role,
    create_on_update=True,
    validate_name=path_segment,
    fields=selectable_fields(),
)

ROLE_BINDING = Kind(
    group=GROUP,
    version="v1",
    kind="RoleBinding",
    plural="rolebindings",
    singular="rolebinding",
    namespaced=True,
    columns=_BINDING_COLUMNS,
    row=_binding_row,
    default=_default_binding,
    validate=_validate_binding,
    validate_update=_validate_binding_update,
    create_on_update=True,
    validate_name=path_segment,
    fields=selectable_fields(),
)

CLUSTER_ROLE_BINDING = Kind(
    group=GROUP,
    version="v1",
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    singular="clusterrolebinding",
    namespaced=False,
    columns=_BINDING_COLUMNS,
    row=_binding_row,
    default=_default_binding,
    validate=_validate_cluster_binding,
    validate_update=_validate_binding_update,
    create_on_update=True,
    validate_name=path_segment,
    fields=selectable_fields(),
)


def aggregated_rules(role: Object, roles: Iterable[Object]) -> list[Object] | None:
    """The rules an aggregating ClusterRole should have, given all ClusterRoles; None when it does not aggregate.

    Selector by selector, the roles each selects in order of name, every rule once, as upstream's controller.
    """
    rule = role.get("aggregationRule")
    if not rule:
        return None
    own = name(role)
    ordered = sorted(roles, key=name)
    rules: list[Object] = []
    for described in rule.get("clusterRoleSelectors") or ():
        selector = LabelSelector.from_object(described)
        for other in ordered:
            if name(other) == own or not selector.matches(other["metadata"].get("labels") or {}):
                continue
            rules += [each for each in other.get("rules") or () if each not in rules]
    return rules
