"""SelfSubjectReview and TokenReview: who the asking client is, and whose token one is. Called by `reviews.handler`."""

from __future__ import annotations

from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.user import UserInfo
from controlplane.errors import Object


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
    return {**review, "status": {"userInfo": user_object(call.request.user)}}
