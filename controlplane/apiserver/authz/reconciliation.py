"""What an existing role or binding lacks of its default, as upstream's reconciliation at every start. Pure.

What users added stays; what they took away comes back, unless they set the annotation
`rbac.authorization.kubernetes.io/autoupdate` to "false".
"""

from __future__ import annotations

from controlplane.apiserver.authz.default_policy import AUTOUPDATE
from controlplane.apiserver.authz.rules import missing
from controlplane.errors import Object


def reconciled(present: Object, wanted: Object) -> Object | None:
    """The present object with what it lacks of the default; None when there is nothing to do."""
    if (present["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    result = {**present, "metadata": _metadata(present["metadata"], wanted["metadata"])}
    if "roleRef" in wanted:
        _merge_binding(result, present, wanted)
    else:
        _merge_role(result, present, wanted)
    return None if result == present else result


def must_be_replaced(present: Object, wanted: Object) -> bool:
    """Whether a binding leads to another role, which no update can mend."""
    protected = (present["metadata"].get("annotations") or {}).get(AUTOUPDATE) == "false"
    return not protected and present.get("roleRef") != wanted.get("roleRef")


def _metadata(present: Object, wanted: Object) -> Object:
    merged = dict(present)
    for key in ("labels", "annotations"):
        merged[key] = {**wanted.get(key, {}), **(present.get(key) or {})}
    return merged


def _merge_role(result: Object, present: Object, wanted: Object) -> None:
    if wanted.get("aggregationRule"):
        have = (present.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
        asked = wanted["aggregationRule"]["clusterRoleSelectors"]
        lacking = [selector for selector in asked if selector not in have]
        if lacking:
            result["aggregationRule"] = {"clusterRoleSelectors": [*have, *lacking]}
        return
    have, asked = present.get("rules") or [], wanted["rules"]
    if have == asked:
        return
    lacking = missing(have, asked)
    if lacking:
        result["rules"] = [*have, *lacking]


def _merge_binding(result: Object, present: Object, wanted: Object) -> None:
    have = present.get("subjects") or []
    lacking = [subject for subject in wanted.get("subjects") or () if subject not in have]
    if lacking:
        result["subjects"] = [*have, *lacking]
