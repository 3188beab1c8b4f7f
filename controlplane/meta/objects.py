"""Reading the metadata of objects that are plain dicts, and copying them.

Called by every part that handles objects. Reads tolerate objects without `metadata` (as patches and
half-built bodies are); nothing here changes what it is given.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import orjson

from controlplane.errors import Object

_T = TypeVar("_T")
_NOTHING: Mapping[str, Any] = {}


def clone(obj: _T) -> _T:
    """An independent copy of anything made of JSON values (12 us for a Pod; `copy.deepcopy` takes 90)."""
    return cast(_T, orjson.loads(orjson.dumps(obj)))


def metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object's `metadata`; empty when it has none. Read-only."""
    return obj.get("metadata") or _NOTHING


def name(obj: Mapping[str, Any]) -> str:
    """`metadata.name`, or an empty string."""
    return metadata(obj).get("name") or ""


def namespace(obj: Mapping[str, Any]) -> str:
    """`metadata.namespace`, or an empty string for cluster-scoped objects."""
    return metadata(obj).get("namespace") or ""


def uid(obj: Mapping[str, Any]) -> str:
    """`metadata.uid`, or an empty string before the server has given one."""
    return metadata(obj).get("uid") or ""


def labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """`metadata.labels`; empty when there are none. Read-only."""
    return metadata(obj).get("labels") or _NOTHING


def annotations(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """`metadata.annotations`; empty when there are none. Read-only."""
    return metadata(obj).get("annotations") or _NOTHING


def resource_version(obj: Mapping[str, Any]) -> int:
    """`metadata.resourceVersion` as a number, 0 when there is none. Raises ValueError if it is no number."""
    return int(metadata(obj).get("resourceVersion") or 0)


def namespaced_name(obj: Mapping[str, Any]) -> str:
    """`namespace/name`, or only the name for cluster-scoped objects: how log lines name objects."""
    space = namespace(obj)
    return f"{space}/{name(obj)}" if space else name(obj)


def dig(obj: Mapping[str, Any] | None, *path: str, default: Any = None) -> Any:
    """The value behind a path of keys, e.g. `dig(pod, "status", "podIP", default="")`.

    Gives `default` when any key on the way is missing or null, or when something on the way is not a mapping.
    """
    value: Any = obj
    for key in path:
        # The exact type first: to ask an abstract class takes ten times as long.
        if type(value) is not dict and not isinstance(value, Mapping):
            return default
        value = value.get(key)
    return default if value is None else value


def is_being_deleted(obj: Object) -> bool:
    """Whether a deletion has begun (`metadata.deletionTimestamp` is set)."""
    return bool(metadata(obj).get("deletionTimestamp"))
