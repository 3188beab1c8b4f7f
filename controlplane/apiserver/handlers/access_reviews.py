"""SubjectAccessReview and its siblings: what somebody may do, asked of the same chain every request passes.

Called by `reviews.handler`. Texts and rules of `pkg/registry/authorization`, v1.32.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.apiserver.authz.attributes import Attributes, Decision, Verdict
from controlplane.apiserver.authz.chain import Chain
from controlplane.apiserver.authz.selectors import from_review
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.handlers.reviews import ReviewHandlers
from controlplane.apiserver.routing import RequestInfo
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, Object, invalid
from controlplane.resources.authorization import GROUP, validate_access_review


@dataclass(frozen=True, slots=True)
class AccessReviews:
    """The answers of the four kinds."""

    chain: Chain

    def handlers(self) -> ReviewHandlers:
        return {
            (GROUP, "subjectaccessreviews"): self.review_subject,
            (GROUP, "localsubjectaccessreviews"): self.review_local,
            (GROUP, "selfsubjectaccessreviews"): self.review_self,
            (GROUP, "selfsubjectrulesreviews"): self.review_rules,
        }

    async def review_subject(self, review: Object, call: Call) -> Object:
        _check(review, call)
        return await self._answered(review, _user_of(review["spec"]))

    async def review_local(self, review: Object, call: Call) -> Object:
        _check(review, call, local=True)
        return await self._answered(review, _user_of(review["spec"]))

    async def review_self(self, review: Object, call: Call) -> Object:
        _check(review, call, subject=False)
        return await self._answered(review, call.request.user)

    async def review_rules(self, review: Object, call: Call) -> Object:
        namespace = (review.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise BadRequest("no namespace on request")
        answer = await self.chain.rules_for(call.request.user, namespace)
        status: Object = {
            "resourceRules": list(answer.resource),
            "nonResourceRules": list(answer.non_resource),
            "incomplete": answer.incomplete,
        }
        if answer.errors:
            status["evaluationError"] = ", ".join(answer.errors)
        return {**review, "spec": {}, "status": status}

    async def _answered(self, review: Object, user: UserInfo) -> Object:
        decision = await self.chain.authorize(_attributes(user, review["spec"]))
        return {**review, "status": _status(decision)}


def _check(review: Object, call: Call, *, subject: bool = True, local: bool = False) -> None:
    review.setdefault("spec", {})
    causes = validate_access_review(review, subject=subject, local=local)
    if causes:
        raise invalid(call.kind.kind, GROUP, "", causes)


def _user_of(spec: Object) -> UserInfo:
    extra = {key: tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), extra)


def _attributes(user: UserInfo, spec: Object) -> Attributes:
    resource = spec.get("resourceAttributes")
    if resource is None:
        path = spec["nonResourceAttributes"]
        return Attributes(user, RequestInfo(path.get("verb", ""), path.get("path", "")))
    info = RequestInfo(
        resource.get("verb", ""),
        "",
        True,
        resource.get("group", ""),
        resource.get("version", ""),
        resource.get("namespace", ""),
        resource.get("resource", ""),
        resource.get("name", ""),
        resource.get("subresource", ""),
    )
    return Attributes(
        user,
        info,
        from_review(resource.get("fieldSelector"), labels=False),
        from_review(resource.get("labelSelector"), labels=True),
    )


def _status(decision: Decision) -> Object:
    status: Object = {"allowed": decision.allowed}
    if decision.verdict is Verdict.DENY:
        status["denied"] = True
    if decision.reason:
        status["reason"] = decision.reason
    if decision.error and not decision.allowed:
        status["evaluationError"] = decision.error
    return status
