"""Reviews: kinds that are only created, answered at once and never stored (TokenReview, SubjectAccessReview, ...).

The kinds are in `catalog.REVIEW_KINDS`; `core.review_handlers` says who answers each. One `Answer` per kind: it gets
the decoded body and gives the same review with its status. Decoding, checks and representation are here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson

from controlplane.apiserver import bodies
from controlplane.apiserver.answers import single
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse
from controlplane.errors import BadRequest, Object
from controlplane.store.events import Stored

Answer = Callable[[Object, Call], Awaitable[Object]]
"""(the review as it was sent, the call) -> the review with its `status`. Raises StatusErrors."""

ReviewHandlers = Mapping[tuple[str, str], Answer]
"""(group, plural) -> who answers."""


def handler(answer: Answer) -> Callable[[Call], Awaitable[ApiResponse]]:
    """The create handler of one kind of review."""

    async def create(call: Call) -> ApiResponse:
        wanted = call.wants()
        call.write_options()
        review = call.body(bodies.target_of(call.kind))
        _check_namespace(review, call)
        review["metadata"].setdefault("creationTimestamp", None)
        review.pop("status", None)
        answered = await answer(review, call)
        stored = Stored(answered, orjson.dumps(answered), 0)
        return call.warned(single(call.kind, stored, wanted, call.include, status=201))

    return create


def _check_namespace(review: Object, call: Call) -> None:
    """The URL's namespace is filled in; another one in the body is refused."""
    if not call.kind.namespaced:
        return
    given = review["metadata"].setdefault("namespace", call.namespace) or call.namespace
    if given != call.namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
