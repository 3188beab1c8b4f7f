"""Request bodies: content type -> decoded object -> checked against what the endpoint takes. Pure.

Called by the handlers. `DECODERS` holds one function per wire format, from bytes to an object. Field validation
drops what the schema does not know and says so, as `fieldValidation` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import orjson

from controlplane.apiserver.options import FieldValidation
from controlplane.apiserver.registry.requests import PatchType
from controlplane.errors import BadRequest, Cause, Object, UnsupportedMediaType, invalid
from controlplane.meta import yaml_json
from controlplane.meta.go_values import go_value
from controlplane.resources.kind import Checked, Kind
from controlplane.schema import duplicates, protobuf, strict

_JSON_TYPES = ("application/json", "text/json")
_YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
_PATCH_TYPES = (PatchType.JSON, PatchType.MERGE, PatchType.STRATEGIC, PatchType.APPLY)
_CUSTOM_PATCH_TYPES = (PatchType.JSON, PatchType.MERGE, PatchType.APPLY)
"""What custom resources take: without a Go type there are no merge keys."""
_MAX_FAULTS = 100
"""Unknown and doubled fields that are reported."""
_OPERATION = frozenset({"op", "path", "from", "value"})
_NO_KIND = "couldn't get version/kind; json parse error"


@dataclass(frozen=True, slots=True)
class Target:
    """What an endpoint takes: the apiVersion and kind of the body. `decode` is for kinds without a built-in schema."""

    api_version: str
    kind: str
    decode: Callable[[Object], Checked] | None = None
    strategic_merge: bool = True

    def check(self, obj: Object) -> Checked:
        """The body decoded: unknown fields, wrong types, what is left."""
        if self.decode is not None:
            return self.decode(obj)
        return strict.check(obj, self.api_version, self.kind)

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]


DELETE_OPTIONS = Target("v1", "DeleteOptions")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A parsed body and what occurred twice in it: paths of fields, or for YAML what its decoder says of lines."""

    value: object
    duplicates: Sequence[str] = ()
    lines: Sequence[str] = ()


Decoder = Callable[[bytes, Target], Decoded]


def target_of(kind: Kind) -> Target:
    return Target(kind.api_version, kind.kind, kind.decode, kind.strategic_merge)


def media_type(content_type: str) -> str:
    """The bare media type; a missing header counts as JSON, as upstream has it."""
    return content_type.partition(";")[0].strip().lower() or _JSON_TYPES[0]


def _decode_json(body: bytes, target: Target) -> Decoded:
    try:
        value, doubled = duplicates.parse(body)
    except ValueError as error:
        raise ValueError(f"{_NO_KIND}: {error}") from error
    return Decoded(value, doubled)


def _decode_yaml(body: bytes, target: Target) -> Decoded:
    try:
        found = yaml_json.parse(body)
    except ValueError as error:
        raise ValueError(f"{_NO_KIND}: {error}") from error
    return Decoded(found.value, (), found.repeated)


def _decode_protobuf(body: bytes, target: Target) -> Decoded:
    return Decoded(protobuf.decode(body, target.api_version, target.kind))


DECODERS: Mapping[str, Decoder] = {
    **dict.fromkeys(_JSON_TYPES, _decode_json),
    **dict.fromkeys(_YAML_TYPES, _decode_yaml),
    protobuf.CONTENT_TYPE: _decode_protobuf,
}
"""Media type -> decoder. A decoder raises ValueError for bytes it cannot read; the target is what it takes a body
for that names no kind."""


def decode(content_type: str, body: bytes, target: Target) -> Decoded:
    """The body of a POST or PUT. Raises UnsupportedMediaType and BadRequest."""
    decoder = DECODERS.get(media_type(content_type))
    types = ["application/json", "application/yaml", protobuf.CONTENT_TYPE]
    if not target.strategic_merge:
        # Custom resources have no messages.
        types.remove(protobuf.CONTENT_TYPE)
        decoder = None if decoder is _decode_protobuf else decoder
    if decoder is None:
        raise _unsupported(types)
    try:
        decoded = decoder(body, target)
    except ValueError as error:
        raise _unrecognized(target, str(error)) from error
    if not isinstance(decoded.value, dict):
        raise _unrecognized(target, f"{_NO_KIND}: the body is not an object")
    return decoded


def decode_delete_options(content_type: str, body: bytes) -> object:
    """The DeleteOptions in the body of a DELETE, None when there is no body. Raises as `decode`."""
    return decode(content_type, body, DELETE_OPTIONS).value if body.strip() else None


def accept(decoded: Decoded, target: Target, validation: FieldValidation, warnings: list[str]) -> Object:
    """The body as an object of `target`, without unknown fields.

    A body without apiVersion and kind gets the endpoint's. Faults that only warn are appended to `warnings`. Raises
    BadRequest for another apiVersion or kind, for wrong types, and for unknown or doubled fields under Strict.
    """
    obj = decoded.value
    if not isinstance(obj, dict):
        raise _unrecognized(target, "the body is not an object")
    _identify(obj, target)
    checked = target.check(obj)
    if checked.type_errors:
        raise _unhandled(target, checked.type_errors[0])
    faults = _faults(checked.unknown, decoded.duplicates)
    if (faults or decoded.lines) and validation is FieldValidation.STRICT:
        repeated = [f"yaml: unmarshal errors:\n{_indented(decoded.lines)}"] if decoded.lines else []
        raise _unhandled(target, f"strict decoding error: {', '.join([*repeated, *faults])}")
    if validation is FieldValidation.WARN:
        warnings.extend([*decoded.lines, *faults])
    accepted: Object = checked.pruned
    if not isinstance(accepted.setdefault("metadata", {}), dict):
        if accepted["metadata"] is not None:
            raise _unhandled(target, "metadata: expected an object")
        accepted["metadata"] = {}
    return accepted


def _identify(obj: Object, target: Target) -> None:
    api_version, kind = obj.get("apiVersion") or "", obj.get("kind") or ""
    if not isinstance(api_version, str) or not isinstance(kind, str):
        raise _unrecognized(target, "couldn't get version/kind; apiVersion and kind must be strings")
    if kind and kind != target.kind:
        raise BadRequest(
            f'{kind} in version "{(api_version or target.api_version).rpartition("/")[2]}" cannot be handled as a '
            f"{target.kind}: "
            f"expected kind {target.kind}"
        )
    if api_version and api_version != target.api_version:
        raise BadRequest(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({target.api_version})"
        )
    obj["apiVersion"], obj["kind"] = target.api_version, target.kind


def check_name(obj: Object, namespace: str, name: str) -> None:
    """What a PUT's body must share with its URL; an absent namespace is filled in. Raises BadRequest."""
    metadata = obj["metadata"]
    given = metadata.get("name") or ""
    if not given:
        raise BadRequest(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if given != name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")
    if namespace:
        found = metadata.setdefault("namespace", namespace) or namespace
        if found != namespace:
            raise BadRequest(
                f"the namespace of the object ({found}) does not match the namespace on the request ({namespace})"
            )


@dataclass(frozen=True, slots=True)
class PatchBody:
    """A parsed patch; `value` is a list for JSON patches, else a dict. `faults`: what strictness objects to in it."""

    type: PatchType
    value: object
    faults: Sequence[str] = ()


def decode_patch(content_type: str, body: bytes, target: Target) -> PatchBody:
    """The body of a PATCH. Raises UnsupportedMediaType and BadRequest."""
    types = _PATCH_TYPES if target.strategic_merge else _CUSTOM_PATCH_TYPES
    wanted = content_type.partition(";")[0].strip()
    if wanted not in types:
        raise _unsupported(types)
    patch_type = PatchType(wanted)
    if patch_type is PatchType.APPLY:
        return _apply_body(body)
    try:
        value, doubled = duplicates.parse(body)
    except ValueError as error:
        raise BadRequest(f"{_patch_fault(patch_type)}{error}") from error
    faults = [f'duplicate field "{path}"' for path in doubled]
    if patch_type is not PatchType.JSON:
        if not isinstance(value, dict):
            raise BadRequest(
                f"{_patch_fault(patch_type)}json: cannot unmarshal {_go_kind(value)} into Go value of type "
                "map[string]interface {}"
            )
        return PatchBody(patch_type, value, faults)
    if not isinstance(value, list):
        raise BadRequest(
            f"error decoding patch: json: cannot unmarshal {_go_kind(value)} into Go value of type "
            "[]handlers.jsonPatchOp"
        )
    faults += [
        f'unknown field "[{at}].{name}"'
        for at, operation in enumerate(value)
        if isinstance(operation, dict)
        for name in operation
        if name not in _OPERATION
    ]
    return PatchBody(patch_type, value, [f"json patch {fault}" for fault in faults])


def _patch_fault(patch_type: PatchType) -> str:
    return "" if patch_type is PatchType.STRATEGIC else "error decoding patch: "


def _apply_body(body: bytes) -> PatchBody:
    """kubectl writes JSON, which is YAML; only when a key is doubled the text is read as YAML for its lines."""
    try:
        value, doubled = duplicates.parse(body)
    except ValueError:
        doubled, value = ["?"], None
    faults: list[str] = []
    if doubled:
        try:
            found = yaml_json.parse(body)
        except ValueError as error:
            raise BadRequest(f"error decoding YAML: {error}") from error
        value = found.value
        faults += found.repeated
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise BadRequest(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{_go_kind(value)} into Go value of type map[string]interface {{}}"
        )
    return PatchBody(PatchType.APPLY, value, faults)


def _go_kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    names = {dict: "object", list: "array", str: "string", int: "number", float: "number"}
    return names.get(type(value), "null")


def patch_check(
    patch: PatchBody, target: Target, validation: FieldValidation, warnings: list[str]
) -> Callable[[Object], Object]:
    """What the registry asks of each patched object: 422 for bad fields, else the object without unknown ones.

    May be called several times (lost races): `warnings` holds the last call's faults.
    """

    def check(obj: Object) -> Object:
        warnings.clear()
        checked = target.check(obj)
        faults = _limited([*patch.faults, *(f'unknown field "{path}"' for path in checked.unknown)])
        problem = checked.type_errors[0] if checked.type_errors else ""
        if not problem and faults and validation is FieldValidation.STRICT:
            problem = f"strict decoding error: {', '.join(faults)}"
        if problem:
            strategic = patch.type is PatchType.STRATEGIC
            shown = go_value(patch.value) if strategic else orjson.dumps(obj).decode()
            quoted = orjson.dumps(shown).decode()
            cause = Cause("FieldValueInvalid", f"Invalid value: {quoted}: {problem}", "patch")
            # Upstream names neither kind nor object here.
            raise invalid("", "", "", [cause])
        if validation is FieldValidation.WARN:
            warnings.extend(faults)
        pruned: Object = checked.pruned
        return pruned

    return check


def apply_check(
    patch: PatchBody, target: Target, validation: FieldValidation, warnings: list[str]
) -> Callable[[Object], Object]:
    """As `patch_check` for a server-side apply: its fields fit their types by then, doubled keys are 400."""

    def check(obj: Object) -> Object:
        warnings.clear()
        if patch.faults and validation is FieldValidation.STRICT:
            raise BadRequest(
                "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n"
                + _indented(patch.faults)
            )
        checked = target.check(obj)
        if checked.type_errors:
            raise _unhandled(target, checked.type_errors[0])
        if validation is FieldValidation.WARN:
            warnings.extend(patch.faults)
        pruned: Object = checked.pruned
        return pruned

    return check


def warning_header(warnings: Sequence[str]) -> str:
    """The value of a `Warning` header (RFC 7234, code 299) for all of `warnings`."""
    plain = ("".join(c if c.isprintable() else " " for c in text) for text in warnings)
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in plain)
    return ", ".join(f'299 - "{text}"' for text in quoted)


def _faults(unknown: Sequence[str], doubled: Sequence[str]) -> list[str]:
    return _limited(
        [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in doubled]
    )


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _limited(faults: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(faults))[:_MAX_FAULTS]


def _unrecognized(target: Target, why: str) -> BadRequest:
    return BadRequest(f"the object provided is unrecognized (must be of type {target.kind}): {why}")


def _unhandled(target: Target, why: str) -> BadRequest:
    return BadRequest(
        f'{target.kind} in version "{target.version}" cannot be handled as a {target.kind}: {why}'
    )


def _unsupported(types: Sequence[str]) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(types)
    )
