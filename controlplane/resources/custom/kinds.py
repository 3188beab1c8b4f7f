"""From a CustomResourceDefinition to the kinds it serves, one `Kind` for each served version. Pure.

Called by the API server whenever a definition is established or has changed. Only what is accepted
(`status.acceptedNames`) is served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from controlplane.errors import Cause, Object
from controlplane.meta.managed.shapes import Shape
from controlplane.meta.objects import dig
from controlplane.resources import fieldpath
from controlplane.resources.custom import openapi
from controlplane.resources.custom.columns import columns_of
from controlplane.resources.custom.conversion import Converter, CustomConversion
from controlplane.resources.custom.decoding import decoder
from controlplane.resources.custom.lists import embedded_causes, list_causes
from controlplane.resources.custom.rules import BLOCKED, RuleSet, is_blocking
from controlplane.resources.custom.shaping import default, drop_nulls
from controlplane.resources.custom.structural import Schema, compile_schema
from controlplane.resources.custom.values import Validator
from controlplane.resources.kind import ALL_VERBS, Kind, Scale
from controlplane.resources.selectable import Getter, selectable_fields
from controlplane.schema import shapes

_STEP = re.compile(r"\.([^.\[]+)|\[['\"]([^'\"]+)['\"]\]")


_TERMINATING = "create not allowed while custom resource definition is terminating"


def kinds_of(definition: Object, converter: Converter, *, terminating: bool = False) -> list[Kind]:
    """The served versions, none while the definition has no accepted names. `terminating`: nothing can be created."""
    names = dig(definition, "status", "acceptedNames", default={})
    if not names.get("plural") or not names.get("kind"):
        return []
    found = _kinds(definition, names, converter, lambda version: bool(version["served"]))
    if terminating:
        verbs = tuple(verb for verb in ALL_VERBS if verb != "create")
        return [replace(kind, verbs=verbs, refusals={"create": _TERMINATING}) for kind in found]
    return found


def storage_kind(definition: Object, converter: Converter) -> Kind:
    """The version that is stored, served or not."""
    names = definition["spec"]["names"]
    return _kinds(definition, names, converter, lambda version: bool(version["storage"]))[0]


def _kinds(
    definition: Object, names: Object, converter: Converter, wanted: Callable[[Object], bool]
) -> list[Kind]:
    spec = definition["spec"]
    schemas = {
        f"{spec['group']}/{version['name']}": compile_schema(dig(version, "schema", "openAPIV3Schema"))
        for version in spec["versions"]
    }
    stored = next(f"{spec['group']}/{version['name']}" for version in spec["versions"] if version["storage"])
    return [
        _kind(spec, names, version, schemas, stored, converter)
        for version in spec["versions"]
        if wanted(version)
    ]


def _kind(
    spec: Object,
    names: Object,
    version: Object,
    schemas: dict[str, Schema],
    stored: str,
    converter: Converter,
) -> Kind:
    group, name = spec["group"], version["name"]
    api_version = f"{group}/{name}"
    raw = dig(version, "schema", "openAPIV3Schema")
    schema = schemas[api_version]
    columns, row = columns_of(version.get("additionalPrinterColumns") or ())
    subresources = version.get("subresources") or {}
    rules = _Rules(schema, raw or {}, subresources.get("scale"))
    list_kind = names.get("listKind") or f"{names['kind']}List"
    return Kind(
        group=group,
        version=name,
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=list_kind,
        namespaced=spec["scope"] == "Namespaced",
        storage=f"{group}/{names['plural']}",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        columns=columns,
        row=row,
        default=_default(schema),
        validate=rules.causes,
        validate_ratcheting=rules.update_causes,
        validate_status=rules.update_causes,
        status=subresources.get("status") is not None,
        status_metadata=(),
        scale=_scale(subresources.get("scale")),
        fields=_fields(version.get("selectableFields") or ()),
        generation=True,
        unconditional_update=False,
        convert=CustomConversion(api_version, stored, schemas, converter),
        decode=decoder(schema),
        definitions=openapi.definitions(group, name, names["kind"], list_kind, raw),
        versions=_Versions(spec),
        strategic_merge=False,
        deprecation=_deprecation(version, api_version, names["kind"]),
    )


class _Versions:
    """See `managed.tracking.Versions`: field owners may have written in any version. Fields are taken to have the same
    names in all of them, as a webhook cannot be asked here."""

    def __init__(self, spec: Object) -> None:
        self._schemas = {
            f"{spec['group']}/{version['name']}": dig(version, "schema", "openAPIV3Schema")
            for version in spec["versions"]
        }
        self._shapes: dict[str, Shape] = {}

    def shape(self, api_version: str) -> Shape | None:
        if api_version not in self._schemas:
            return None
        if api_version not in self._shapes:
            self._shapes[api_version] = shapes.custom(self._schemas[api_version])
        return self._shapes[api_version]

    def convert(self, obj: Object, api_version: str) -> Object:
        return {**obj, "apiVersion": api_version}


def _deprecation(version: Object, api_version: str, kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{api_version} {kind} is deprecated"


def _default(schema: Schema) -> Callable[[Object], None]:
    def run(obj: Object) -> None:
        default(obj, schema)
        drop_nulls(obj, schema)

    return run


def path_of(text: str) -> tuple[str, ...]:
    """The keys of a simple path such as `.spec.replicas`."""
    return tuple(plain or quoted for plain, quoted in _STEP.findall(text))


def _scale(written: Object | None) -> Scale | None:
    if not written:
        return None
    selector = written.get("labelSelectorPath") or ""
    return Scale(
        path_of(written["specReplicasPath"]),
        path_of(written["statusReplicasPath"]),
        path_of(selector) if selector else (),
        required=True,
    )


def _fields(selectable: Sequence[Object]) -> dict[str, Getter]:
    found = dict(selectable_fields())
    for each in selectable:
        keys = path_of(each["jsonPath"])
        found[".".join(keys)] = _text_at(keys)
    return found


def _text_at(keys: tuple[str, ...]) -> Getter:
    def read(obj: Object) -> str:
        value = dig(obj, *keys, default="")
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return read


class _Rules:
    """All validation of one version. An update does not judge again what it leaves as it was."""

    def __init__(self, schema: Schema, raw: Object, scale: Object | None) -> None:
        self._schema = schema
        self._values = Validator(raw)
        self._rules = RuleSet(schema)
        self._scale = scale

    def causes(self, obj: Object) -> Sequence[Cause]:
        causes = self._values.causes(_body(obj))
        causes += self._scale_causes(obj)
        causes += embedded_causes(obj, self._schema)
        causes += list_causes(obj, self._schema)
        return self._with_rules(causes, obj, None)

    def update_causes(self, new: Object, old: Object) -> Sequence[Cause]:
        causes = self._values.update_causes(_body(new), _body(old))
        causes += self._scale_causes(new)
        if not embedded_causes(old, self._schema):
            causes += embedded_causes(new, self._schema)
        if not list_causes(old, self._schema):
            causes += list_causes(new, self._schema)
        return self._with_rules(causes, new, old)

    def _with_rules(self, causes: list[Cause], new: Object, old: Object | None) -> Sequence[Cause]:
        if not self._rules:
            return causes
        if any(map(is_blocking, causes)):
            return [*causes, BLOCKED]
        return [*causes, *self._rules.causes(new, old)]

    def _scale_causes(self, obj: Object) -> list[Cause]:
        if not self._scale:
            return []
        causes = []
        for place in ("specReplicasPath", "statusReplicasPath"):
            keys = path_of(self._scale[place])
            value = dig(obj, *keys)
            path = ".".join(keys)
            if isinstance(value, int) and not isinstance(value, bool) and value < 0:
                causes.append(fieldpath.invalid(path, value, "should be a non-negative integer"))
            elif isinstance(value, int) and value > 2**31 - 1:
                causes.append(fieldpath.invalid(path, value, f"should be less than or equal to {2**31 - 1}"))
        return causes


def _body(obj: Object) -> Object:
    """Metadata is judged as that of every object; the schema may only say things of the name."""
    if "metadata" not in obj:
        return obj
    metadata = {name: value for name, value in obj["metadata"].items() if name in ("name", "generateName")}
    return {**obj, "metadata": metadata}
