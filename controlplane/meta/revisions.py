"""ControllerRevisions: the history of DaemonSets and StatefulSets. Pure.

The data is a strategic merge patch that puts the template back, exactly as upstream stores it: `kubectl rollout undo`
sends it as it is, and compares it byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson

from controlplane.errors import Object
from controlplane.meta.objects import dig, name
from controlplane.meta.pod_templates import template_of


def template_patch(workload: Object) -> Object:
    """The data of a revision that holds the workload's present template, with sorted keys."""
    patch = {"spec": {"template": {**template_of(workload), "$patch": "replace"}}}
    data: Object = orjson.loads(orjson.dumps(patch, option=orjson.OPT_SORT_KEYS))
    return data


def template_in(revision: Object) -> Object:
    """The template a revision puts back."""
    template: Object = dig(revision, "data", "spec", "template", default={})
    return {key: value for key, value in template.items() if key != "$patch"}


def number(revision: Object) -> int:
    """Its place in the history."""
    return int(revision.get("revision") or 0)


def next_number(revisions: Sequence[Object]) -> int:
    return max(map(number, revisions), default=0) + 1


def in_order(revisions: Iterable[Object]) -> list[Object]:
    """Oldest first; of the same number by age, then name."""
    return sorted(
        revisions,
        key=lambda each: (number(each), dig(each, "metadata", "creationTimestamp", default=""), name(each)),
    )
