"""SelfSubjectReview and TokenReview: who the asking client is, and whose token one is. Called by `reviews.handler`."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.credentials import AuthenticationError
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.user import UserInfo
from controlplane.errors import BadRequest, InternalError, Object
from controlplane.meta.timestamps import now


def user_object(user: UserInfo) -> Object:
    """`user` as a UserInfo object."""
    found: Object = {"username": user.name}
    if user.uid:
        found["uid"] = user.uid
    if user.groups:
        found["groups"] = list(user.groups)
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra.items()}
    return found


async def review_self(review: Object, call: Call) -> Object:
    """SelfSubjectReview: the attributes of the user who asks, impersonated or not."""
    metadata = {**review["metadata"], "creationTimestamp": now()}
    return {**review, "metadata": metadata, "status": {"userInfo": user_object(call.request.user)}}


@dataclass(frozen=True, slots=True)
class TokenReviews:
    """TokenReview: whether a token is good for the audiences asked, and who its owner is."""

    authentication: Authentication

    async def review(self, review: Object, call: Call) -> Object:
        spec = review.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise BadRequest("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or ()) or self.authentication.api_audiences
        status: Object = {"user": {}}
        try:
            identity = await self.authentication.review(token, audiences)
        except AuthenticationError as refusal:
            return {**review, "status": {**status, "error": str(refusal)}}
        if identity is None:
            return {**review, "status": status}
        if audiences and not set(audiences) & set(identity.audiences):
            raise InternalError("Internal error occurred: unable to validate audience for given auds")
        return {
            **review,
            "status": {
                "authenticated": True,
                "user": user_object(identity.user),
                "audiences": list(identity.audiences),
            },
        }
