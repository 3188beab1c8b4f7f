"""What printer columns are made of: lists, selectors, containers and the columns many kinds share.

Called by the `row` functions of the kinds. Pure: object in, cell texts out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.meta.labels import LabelSelector
from controlplane.resources.kind import Column

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
NAME = Column("Name", format="name", documents=f"{OBJECT_META}.name")
AGE = Column("Age", documents=f"{OBJECT_META}.creationTimestamp")
CONTAINERS = Column("Containers", priority=1, description="Names of each container in the template.")
IMAGES = Column("Images", priority=1, description="Images referenced by each container in the template.")


def wide(name: str, description: str, type_: str = "string") -> Column:
    """A column that shows only with `-o wide`."""
    return Column(name, type=type_, priority=1, description=description)


def format_labels(labels: Mapping[str, str] | None) -> str:
    """`a=1,b=2` in key order, `<none>` for an empty map."""
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels)) if labels else NONE


def format_selector(selector: Mapping[str, Any] | None) -> str:
    """A `metav1.LabelSelector` as query text; `<none>` for an empty one, `<error>` for one that cannot be."""
    try:
        return str(LabelSelector.from_object(selector)) or NONE
    except ValueError:
        return "<error>"


def containers_and_images(template: Mapping[str, Any] | None) -> tuple[str, str]:
    """Two cells: the template's container names and their images."""
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    return joined(c.get("name", "") for c in containers), joined(c.get("image", "") for c in containers)


def joined(texts: Iterable[str]) -> str:
    return ",".join(texts)


def first_few(texts: Sequence[str], maximum: int = 3) -> str:
    """The first texts, and how many more there are: `a,b,c + 2 more...`."""
    text = ",".join(texts[:maximum])
    more = len(texts) - maximum
    return f"{text} + {more} more..." if more > 0 else text


def number(value: Any) -> int:
    """A count from an object's status, 0 when it is missing."""
    return value if isinstance(value, int) else 0
