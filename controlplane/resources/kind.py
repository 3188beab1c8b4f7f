"""What the API machinery must know of one kind, in one declarative value.

Each module of this package declares the kinds of one API group as `Kind` values; `catalog.py` gathers them by
an explicit list. Everything that differs between kinds (defaults, validation, printer columns, subresources,
selectable fields) hangs on the `Kind`; the API server has no `if kind == ...`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from controlplane.errors import Cause, Object
from controlplane.meta.managed.shapes import Shape
from controlplane.meta.managed.tracking import Versions

FREE_METADATA = ("annotations", "finalizers", "labels", "ownerReferences")
"""The metadata that clients may change as they like."""

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column. `priority` > 0 shows only with `-o wide`.

    `documents` names the field of the API whose documentation describes the column, as `type.field`
    (`io.k8s.api.core.v1.ServiceSpec.type`); it stands in for a description.
    """

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""
    documents: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers in the object, as paths of keys.

    `required`: without a number there is no Scale; else a missing one is 0.
    """

    spec_replicas: tuple[str, ...] = ("spec", "replicas")
    status_replicas: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")
    required: bool = False


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource besides status and scale: what discovery says of it.

    `verbs` e.g. `("create", "get")` for exec; `group`/`version`/`kind` of what its body is.
    """

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


class Checked(Protocol):
    """A decoded body: see `schema.strict.Checked`."""

    @property
    def pruned(self) -> Object: ...

    @property
    def unknown(self) -> Sequence[str]: ...

    @property
    def type_errors(self) -> Sequence[str]: ...


class ConversionFault(Exception):
    """Objects cannot be had in the wanted version; the text is what clients are told."""


class Conversion(Protocol):
    """Between one version of a kind and what is stored. Both may take their time, and raise ConversionFault."""

    async def read(self, objs: Sequence[Object]) -> Sequence[Object]:
        """Stored objects in this version, in the same order; those that stay as they are may be the same ones."""

    async def write(self, obj: Object) -> Object:
        """An object of this version as it is to be stored."""


@dataclass(frozen=True, slots=True)
class Part:
    """A subresource that writes a part of the object itself, such as a certificate request's `approval`.

    `take(proposed, old)` makes the new state of the old one and what is proposed; `validate(new, old)` judges it.
    """

    take: Callable[[Object, Object], Object]
    validate: Callable[[Object, Object], Sequence[Cause]]


def _nothing(obj: Object) -> None:
    """Default when a kind has no defaults of its own."""


def _no_causes(obj: Object) -> Sequence[Cause]:
    return ()


def _no_warnings(new: Object, old: Object | None) -> Sequence[str]:
    return ()


def _no_update_causes(new: Object, old: Object) -> Sequence[Cause]:
    return ()


def _no_conditions(obj: Object) -> Sequence[Object]:
    return ()


def _no_change(new: Object, old: Object) -> None:
    """Default when nothing has to be carried over on an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One served kind.

    `default(obj)` fills defaults in place (idempotent). `validate(obj)` and `validate_update(new, old)`
    return causes; `validate_update` holds only what concerns the change (immutable fields), `validate_create`
    what only a new object must obey. `warnings(new, old)` are told to the client of a write that is accepted (`old` is
    None for a new object).
    `prepare_create(obj)` and `prepare_update(new, old)` edit in place before validation what a client may
    not set or may leave out (e.g. a Service's cluster IP on a PUT without it); they run after the defaults
    and after the status was taken from where it belongs: a new object has none, except with `status_at_creation`.
    `prepare_status(new, old)` puts back what a write
    of the status must not change; of the metadata such a write changes only `status_metadata`.

    `columns` are all printer columns and `row(obj, now)` the cells in the same order; the column of format
    `name` comes first but for kinds whose name says little. `row_conditions(obj)` are the table row's
    conditions (`Completed` of a finished pod). `validate_name` returns upstream's messages, none for a good
    name (None = a DNS-1123 subdomain). `storage` names the folder in the store when it is not the plural
    (kinds served in several groups share one).

    `orphans` keeps what an object owns when it is deleted without a word about that (Background is the rule);
    `orphans_warning` is what such a client is told.

    A kind served in several versions is stored in one of them, the hub; the others name it (`hub`, a plural looked up
    by group and version: `("", "v1")`, `("autoscaling", "v2")`) and convert whole objects, pure and without loss:
    `to_hub(obj)` and `from_hub(obj)` return new objects with the other apiVersion and kind. Rules such a version does
    not have itself are the hub's, seen through the conversion (`versions.py`); its `default` runs before the hub's.
    `convert` is the same as an asynchronous form, for kinds whose versions are converted elsewhere.

    Kinds that are no part of this package say what the schema package cannot know of them: `decode` (a body's unknown
    fields and wrong types), `definitions` (OpenAPI schemas by full name), `shape` (what server-side apply must know of
    the type; None = a built-in type, found by its name), and `strategic_merge`: whether such patches are taken.
    `validate_ratcheting(new, old)` stands for both `validate` and `validate_update` where an update does not judge
    again what it does not change. `versions` is set where entries of field owners may be of several versions.
    `deprecation` is what clients of a deprecated version are warned with, `refusals` the texts for verbs that are not
    served now.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    storage: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    columns: tuple[Column, ...] = ()
    row: Callable[[Object, datetime], Sequence[object]] | None = None
    row_conditions: Callable[[Object], Sequence[Object]] = _no_conditions
    default: Callable[[Object], None] = _nothing
    prepare_create: Callable[[Object], None] = _nothing
    prepare_update: Callable[[Object, Object], None] = _no_change
    prepare_delete: Callable[[Object], None] | None = None
    validate: Callable[[Object], Sequence[Cause]] = _no_causes
    validate_create: Callable[[Object], Sequence[Cause]] = _no_causes
    validate_update: Callable[[Object, Object], Sequence[Cause]] = _no_update_causes
    validate_ratcheting: Callable[[Object, Object], Sequence[Cause]] | None = None
    warnings: Callable[[Object, Object | None], Sequence[str]] = _no_warnings
    status: bool = False
    status_at_creation: bool = False
    status_metadata: tuple[str, ...] = FREE_METADATA
    prepare_status: Callable[[Object, Object], None] = _no_change
    validate_status: Callable[[Object, Object], Sequence[Cause]] = _no_update_causes
    scale: Scale | None = None
    subresources: tuple[Subresource, ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    generation: bool = False
    graceful: bool = False
    orphans: bool = False
    orphans_warning: str = ""
    unconditional_update: bool = True
    create_on_update: bool = False
    generate_name: bool = True
    validate_name: Callable[[str], Sequence[str]] | None = None
    hub: tuple[str, str] | None = None
    to_hub: Callable[[Object], Object] | None = None
    from_hub: Callable[[Object], Object] | None = None
    convert: Conversion | None = None
    decode: Callable[[Object], Checked] | None = None
    definitions: Mapping[str, Object] = field(default_factory=dict)
    shape: Shape | None = None
    versions: Versions | None = None
    strategic_merge: bool = True
    deprecation: str = ""
    refusals: Mapping[str, str] = field(default_factory=dict)
    list_kind: str = ""

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        """Where its objects live in the store, with the closing slash."""
        return f"/registry/{self.storage or self.plural}/"

    def update_causes(self, new: Object, old: Object) -> Sequence[Cause]:
        """All that is wrong with an update, apart from the metadata."""
        if self.validate_ratcheting is not None:
            return self.validate_ratcheting(new, old)
        return [*self.validate(new), *self.validate_update(new, old)]

    def key(self, namespace: str, name: str) -> str:
        return f"{self.prefix}{namespace}/{name}" if self.namespaced else f"{self.prefix}{name}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The REST path: collection, object or subresource. An empty namespace means all of them."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)
