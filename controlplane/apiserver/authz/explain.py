"""Why somebody may do something, or may not: every authorizer's word, and the binding and rule behind it.

Served as `GET /debug/authorization/explain` and `.../who-can` to whoever may get these paths; `netkit auth` asks
there. Decides nothing: it asks the very chain that requests pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.apiserver.authz.attributes import MASTERS, Attributes, Decision, refusal
from controlplane.apiserver.authz.chain import Chain
from controlplane.apiserver.authz.rbac import RbacPolicy
from controlplane.apiserver.authz.rules import ALL, compact_text, wanted
from controlplane.apiserver.authz.selectors import field_requirements
from controlplane.apiserver.messages import ApiRequest, ApiResponse, json_response
from controlplane.apiserver.options import Query
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Object

EXPLAIN = ("debug", "authorization", "explain")
WHO_CAN = ("debug", "authorization", "who-can")


class Explainer:
    """Answers both questions for one chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._policy = next((m for _, m in chain.members if isinstance(m, RbacPolicy)), None)

    async def explain(self, request: ApiRequest, query: Query) -> ApiResponse:
        """`user`, `group` (repeated), `verb`, and `path`, or `resource`, `apiGroup`, `name`, `namespace`,
        `subresource`, `fieldSelector`."""
        user = UserInfo(query.text("user"), groups=tuple(query.all("group")))
        if not user.name or not query.text("verb"):
            raise BadRequest("user and verb must be given")
        info = _info(query)
        attributes = Attributes(user, info, field_requirements(query.text("fieldSelector")))
        decision = await self._chain.authorize(attributes)
        answer: Object = {
            "allowed": decision.allowed,
            "user": user.name,
            "groups": list(user.groups),
            "authorizer": decision.source,
            "reason": decision.reason,
            "error": decision.error,
            "refusal": "" if decision.allowed else refusal(attributes),
            "opinions": await self._opinions(attributes),
            **_facts(decision),
        }
        if not decision.allowed and self._policy is not None:
            answer["bindings"] = self._bindings(self._policy, attributes)
        return json_response(200, answer)

    async def who_can(self, request: ApiRequest, query: Query) -> ApiResponse:
        """`verb` and what `explain` takes but the user: everybody RBAC lets do it, with binding and rule."""
        if not query.text("verb"):
            raise BadRequest("verb must be given")
        modes = [mode for mode, _ in self._chain.members]
        found = _subjects(self._policy, _info(query)) if self._policy is not None else []
        superusers: Object = {"kind": "Group", "name": MASTERS, "namespace": "", "by": "system:masters"}
        return json_response(200, {"subjects": [superusers, *found], "authorizers": modes})

    async def _opinions(self, attributes: Attributes) -> list[Object]:
        """What each authorizer says by itself, in the order they are asked."""
        if MASTERS in attributes.user.groups:
            return []
        opinions: list[Object] = []
        for mode, member in self._chain.members:
            decision = await member.authorize(attributes)
            opinions.append(
                {
                    "authorizer": mode,
                    "decision": str(decision.verdict),
                    "reason": decision.reason,
                    "error": decision.error,
                }
            )
        return opinions

    def _bindings(self, policy: RbacPolicy, attributes: Attributes) -> list[Object]:
        """The bindings the user has here, those whose rules come nearest first."""
        found = []
        for grant in policy.grants(attributes.user, attributes.info.namespace):
            near = [(_nearness(rule, attributes.info), rule) for rule in grant.rules.source]
            near.sort(key=lambda pair: -pair[0])
            best = near[0][0] if near else 0
            shown = [compact_text(rule) for score, rule in near[:3] if score >= 2]
            found.append((best, {**_binding(grant.binding), "error": grant.error, "nearest": shown}))
        found.sort(key=lambda pair: -pair[0])
        return [binding for _, binding in found]


def _info(query: Query) -> RequestInfo:
    path = query.text("path")
    if path:
        return RequestInfo(query.text("verb"), path)
    if not query.text("resource"):
        raise BadRequest("resource or path must be given")
    return RequestInfo(
        query.text("verb"),
        "",
        True,
        query.text("apiGroup"),
        "*",
        query.text("namespace"),
        query.text("resource"),
        query.text("name"),
        query.text("subresource"),
    )


def _facts(decision: Decision) -> Object:
    if "binding" not in decision.facts:
        return {}
    return {
        "binding": _binding(decision.facts["binding"]),
        "rule": decision.facts["rule"],
        "ruleText": compact_text(decision.facts["rule"]),
    }


def _binding(binding: Object) -> Object:
    metadata, reference = binding["metadata"], binding["roleRef"]
    namespace = metadata.get("namespace", "")
    return {
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "name": metadata["name"],
        "namespace": namespace,
        "role": {"kind": reference["kind"], "name": reference["name"]},
    }


def _nearness(rule: Object, info: RequestInfo) -> int:
    """How many parts of the request a rule fits: verb, group, resource, name (or verb and path)."""
    verb = _has(rule.get("verbs"), (info.verb,))
    if not info.is_resource:
        return int(verb) + 2 * bool(rule.get("nonResourceURLs"))
    resource = _has(rule.get("resources"), wanted(info))
    group = _has(rule.get("apiGroups"), (info.group,))
    names = rule.get("resourceNames") or ()
    return 0 if not resource else 1 + int(verb) + int(group) + int(not names or info.name in names)


def _has(present: Sequence[str] | None, asked: Iterable[str]) -> bool:
    owned = present or ()
    return ALL in owned or any(each in owned for each in asked)


def _subjects(policy: RbacPolicy, info: RequestInfo) -> list[Object]:
    combined, any_sub = wanted(info)
    found: list[Object] = []
    for binding, rules in policy.all_grants(info.namespace):
        rule = rules.allowing(info, combined, any_sub)
        if rule is None:
            continue
        named = _binding(binding)
        for subject in binding.get("subjects") or ():
            namespace = subject.get("namespace") or (
                named["namespace"] if subject["kind"] == "ServiceAccount" else ""
            )
            found.append(
                {
                    "kind": subject["kind"],
                    "name": subject["name"],
                    "namespace": namespace,
                    "by": "RBAC",
                    "binding": named,
                    "rule": compact_text(rule),
                }
            )
    return found
