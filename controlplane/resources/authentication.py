"""authentication.k8s.io/v1: the reviews that answer who somebody is. They can be created and nothing else.

Answered by `controlplane.apiserver.handlers.authentication_reviews`; never stored.
"""

from __future__ import annotations

from controlplane.resources.kind import Kind

GROUP = "authentication.k8s.io"

SELF_SUBJECT_REVIEW = Kind(
    group=GROUP,
    version="v1",
    kind="SelfSubjectReview",
    plural="selfsubjectreviews",
    singular="selfsubjectreview",
    namespaced=False,
    verbs=("create",),
)

TOKEN_REVIEW = Kind(
    group=GROUP,
    version="v1",
    kind="TokenReview",
    plural="tokenreviews",
    singular="tokenreview",
    namespaced=False,
    verbs=("create",),
)
