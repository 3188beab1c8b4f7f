"""Owners and applies on small types, for the tests of field ownership."""

from __future__ import annotations

from typing import Any

from controlplane.meta.managed.applying import Applied, apply
from controlplane.meta.managed.sets import FieldSet
from controlplane.meta.managed.shapes import Form, Scalar, Shape
from controlplane.meta.managed.tracking import Writer, tracked
from controlplane.schema import shapes

VERSION = "v1"
TIME = "2026-01-02T03:04:05Z"
LATER = "2026-01-02T03:05:05Z"


def _struct(**fields: Shape) -> Shape:
    return Shape(Form.MAP, fields=lambda: fields)


TEXT = Shape(Form.SCALAR, scalar=Scalar.STRING)
NUMBER = Shape(Form.SCALAR, scalar=Scalar.NUMERIC)
MAP = Shape(Form.MAP, element=TEXT)
ITEM = _struct(name=TEXT, value=TEXT, labels=MAP, port=NUMBER)
SPEC = _struct(
    text=TEXT,
    number=NUMBER,
    map=MAP,
    atomic=Shape(Form.MAP, element=TEXT, atomic=True),
    list=Shape(Form.LIST, element=TEXT),
    set=Shape(Form.LIST, element=TEXT, is_set=True),
    items=Shape(Form.LIST, element=ITEM, keys=("name",)),
    ports=Shape(
        Form.LIST,
        element=_struct(port=NUMBER, protocol=TEXT, name=TEXT),
        keys=("port", "protocol"),
        defaults={"protocol": "TCP"},
    ),
    inner=_struct(a=TEXT, b=TEXT),
    any=Shape(Form.ANY),
)
THING = _struct(
    apiVersion=TEXT, kind=TEXT, metadata=shapes.custom(None).fields["metadata"], spec=SPEC, status=SPEC
)


class Versions:
    """One version of one type."""

    def __init__(self, shape: Shape = THING, version: str = VERSION) -> None:
        self._shape = shape
        self._version = version

    def shape(self, api_version: str) -> Shape | None:
        return self._shape if api_version == self._version else None

    def convert(self, obj: dict[str, Any], api_version: str) -> dict[str, Any]:
        return obj


def thing(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": "Thing",
        "metadata": {"name": "x", **(metadata or {})},
        **({"spec": spec} if spec else {}),
    }


class Live:
    """One object as the server would keep it."""

    def __init__(self, versions: Versions | None = None) -> None:
        self.versions = versions or Versions()
        self.obj: dict[str, Any] | None = None
        self.time = TIME

    def update(self, obj: dict[str, Any], manager: str, claimed: Any = None, subresource: str = "") -> None:
        entries = tracked(self.versions, self.obj, obj, claimed, self._writer(manager, subresource))
        self._store(obj, entries)

    def apply(self, obj: dict[str, Any], manager: str, force: bool = False) -> Applied:
        result = apply(self.versions, self.obj, obj, obj["kind"], self._writer(manager), force)
        self._store(result.obj, result.entries)
        return result

    def _writer(self, manager: str, subresource: str = "") -> Writer:
        return Writer(manager, VERSION, subresource, self.time)

    def _store(self, obj: dict[str, Any], entries: list[dict[str, Any]]) -> None:
        self.obj = {**obj, "metadata": {**obj["metadata"], "uid": "u"}}
        self.obj["metadata"].pop("managedFields", None)
        if entries:
            self.obj["metadata"]["managedFields"] = entries

    @property
    def entries(self) -> list[dict[str, Any]]:
        assert self.obj is not None
        found: list[dict[str, Any]] = self.obj["metadata"].get("managedFields", [])
        return found

    @property
    def spec(self) -> dict[str, Any]:
        assert self.obj is not None
        found: dict[str, Any] = self.obj.get("spec", {})
        return found

    def owned(self, manager: str, operation: str | None = None) -> FieldSet | None:
        """What a manager owns, None when it has no entry."""
        for entry in self.entries:
            if entry["manager"] == manager and operation in (None, entry["operation"]):
                fields: FieldSet = entry["fieldsV1"]
                return fields
        return None
