"""Authorizers in a row: the first that says allow or deny decides, as upstream's union of authorizers.

Members of `system:masters` are let in before anybody is asked, so that no policy can lock the administrator out.
"""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.apiserver.authz.attributes import (
    MASTERS,
    Attributes,
    Authorizer,
    Decision,
    RulesAnswer,
    Verdict,
)
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object

_SUPERUSER = Decision(Verdict.ALLOW, source="system:masters")
_ANYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_ANY_PATH = {"verbs": ["*"], "nonResourceURLs": ["*"]}


class Chain:
    """`members` in order, each with its mode's name (`Node`, `RBAC`, ...)."""

    def __init__(self, members: Sequence[tuple[str, Authorizer]]) -> None:
        self.members = tuple(members)

    async def authorize(self, attributes: Attributes) -> Decision:
        """What the first one with an opinion says; else no opinion with all reasons, one per line."""
        if MASTERS in attributes.user.groups:
            return _SUPERUSER
        reasons: list[str] = []
        errors: list[str] = []
        for mode, member in self.members:
            decision = await member.authorize(attributes)
            if decision.verdict is not Verdict.NO_OPINION:
                if decision.source:
                    return decision
                return Decision(decision.verdict, decision.reason, decision.error, mode, decision.facts)
            if decision.reason:
                reasons.append(decision.reason)
            if decision.error:
                errors.append(decision.error)
        return Decision(Verdict.NO_OPINION, "\n".join(reasons), ", ".join(errors))

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        """What all members together know of the user's rights."""
        resource: list[Object] = []
        non_resource: list[Object] = []
        errors: list[str] = []
        incomplete = False
        for _, member in self.members:
            rules = getattr(member, "rules_for", None)
            if rules is None:
                continue
            answer: RulesAnswer = await rules(user, namespace)
            resource += answer.resource
            non_resource += answer.non_resource
            errors += answer.errors
            incomplete = incomplete or answer.incomplete
        return RulesAnswer(resource, non_resource, incomplete, tuple(errors))


def as_chain(authorizer: Authorizer) -> Chain:
    """The authorizer itself if it is a chain, else a chain of it alone."""
    return authorizer if isinstance(authorizer, Chain) else Chain([(type(authorizer).__name__, authorizer)])


class AlwaysAllow:
    """Everybody may do everything."""

    async def authorize(self, attributes: Attributes) -> Decision:
        return Decision(Verdict.ALLOW)

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        return RulesAnswer([_ANYTHING], [_ANY_PATH])


class AlwaysDeny:
    """Nobody may do anything, but the superusers."""

    async def authorize(self, attributes: Attributes) -> Decision:
        return Decision(Verdict.NO_OPINION, "Everything is forbidden.")

    async def rules_for(self, user: UserInfo, namespace: str) -> RulesAnswer:
        return RulesAnswer()
