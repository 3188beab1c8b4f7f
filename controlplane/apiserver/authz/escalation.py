"""Nobody gives away rights he does not have: the check of writes to roles and bindings.

Runs as the last mutating admission plug-in (upstream does it in the storage of these kinds, behind mutating
admission and before validation). Texts of `pkg/registry/rbac`, v1.32.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.authz.attributes import MASTERS, Attributes, Authorizer, aggregate
from controlplane.apiserver.authz.rbac import GROUP, RbacPolicy
from controlplane.apiserver.authz.rules import compact, compact_text, missing
from controlplane.apiserver.routing import RequestInfo
from controlplane.errors import Object, not_found
from controlplane.resources.fieldpath import quoted, quoted_list

_EVERYTHING = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)
_ROLES = frozenset({"roles", "clusterroles"})
_BINDINGS = frozenset({"rolebindings", "clusterrolebindings"})
_NOT_COMPARED = ("finalizers", "ownerReferences", "managedFields", "resourceVersion")


class EscalationCheck:
    """See `plugin.AdmissionPlugin`. `authorizer` is asked for the verbs `escalate` and `bind`."""

    def __init__(self, policy: RbacPolicy, authorizer: Authorizer) -> None:
        self._policy = policy
        self._authorizer = authorizer

    async def admit(self, request: AdmissionRequest) -> None:
        kind, obj = request.kind, request.obj
        if kind.group != GROUP or obj is None or request.operation is Operation.DELETE:
            return
        if MASTERS in request.user.groups:
            return
        if request.old is not None and _only_for_the_garbage_collector(obj, request.old):
            return
        if kind.plural in _ROLES:
            await self._check_role(request, obj)
        elif kind.plural in _BINDINGS:
            await self._check_binding(request, obj)

    async def _check_role(self, request: AdmissionRequest, role: Object) -> None:
        name = request.name if request.operation is Operation.UPDATE else ""
        if await self._may(request, "escalate", request.kind.plural, request.namespace, name):
            return
        self._confirm(request, _list(role.get("rules")))
        if role.get("aggregationRule") or (request.old or {}).get("aggregationRule"):
            owned, _ = self._policy.rules_of(request.user, request.namespace)
            if missing(owned, _EVERYTHING):
                raise request.forbid("must have cluster-admin privileges to use the aggregationRule")

    async def _check_binding(self, request: AdmissionRequest, binding: Object) -> None:
        reference = binding.get("roleRef")
        if not isinstance(reference, dict):
            return
        plural = {"ClusterRole": "clusterroles", "Role": "roles"}.get(str(reference.get("kind", "")))
        if plural is None:
            return  # validation says what is wrong
        name = str(reference.get("name", ""))
        if await self._may(request, "bind", plural, request.namespace, name):
            return
        rules = self._policy.role_rules(reference, request.namespace)
        if rules is None:
            raise not_found(plural, GROUP, name)
        self._confirm(request, rules)

    async def _may(
        self, request: AdmissionRequest, verb: str, plural: str, namespace: str, name: str
    ) -> bool:
        info = RequestInfo(verb, "", True, GROUP, "*", namespace, plural, name)
        return (await self._authorizer.authorize(Attributes(request.user, info))).allowed

    def _confirm(self, request: AdmissionRequest, rules: Sequence[Object]) -> None:
        """Raises Forbidden with the list of what the user does not have."""
        user = request.user
        owned, errors = self._policy.rules_of(user, request.namespace)
        lacking = missing(owned, rules)
        if not lacking:
            return
        lines = sorted({compact_text(rule) for rule in compact(lacking)})
        text = (
            f"user {quoted(user.name)} (groups={quoted_list(user.groups)}) is attempting to grant RBAC permissions "
            "not currently held:\n" + "\n".join(lines)
        )
        if errors:
            # Here the roles are read from storage, which names resources in the plural.
            plural = [error.replace(f".{GROUP} ", f"s.{GROUP} ", 1) for error in errors]
            text += f"; resolution errors: [{aggregate(plural)}]"
        raise request.forbid(text)


def _list(value: object) -> list[Object]:
    return [rule for rule in value if isinstance(rule, dict)] if isinstance(value, list) else []


def _only_for_the_garbage_collector(new: Object, old: Object) -> bool:
    """Whether nothing changes but what the garbage collector needs to change."""
    before = {**old, "metadata": _compared(old["metadata"])}
    return before == {**new, "metadata": _compared(new["metadata"])}


def _compared(metadata: Object) -> Object:
    return {key: value for key, value in metadata.items() if key not in _NOT_COMPARED}
