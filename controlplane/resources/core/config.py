"""ConfigMap and Secret: data that pods read. Both can be made immutable for good."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime

import orjson

from controlplane.errors import Cause, Object
from controlplane.meta.names import config_map_key
from controlplane.meta.objects import name
from controlplane.meta.timestamps import age
from controlplane.resources.cells import AGE, NAME
from controlplane.resources.fieldpath import too_long
from controlplane.resources.kind import Column, Kind
from controlplane.resources.rules import Field, same
from controlplane.resources.selectable import selectable_fields

DATA_MAX = 1024 * 1024
"""Bytes one ConfigMap or Secret may hold."""

_FROZEN = "field is immutable when `immutable` is set"

_JSON_TYPES = ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson")
_NEEDED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _validate_config_map(config_map: Object) -> Sequence[Cause]:
    field = Field.root(config_map)
    binary = field["binaryData"]
    size = 0
    for entry_name, entry in field["data"].entries():
        entry.of(entry_name).check(config_map_key)
        if entry_name in (binary.value or ()):
            entry.of(entry_name).invalid("duplicate of key present in binaryData")
        size += len(entry.text.encode())
    for entry_name, entry in binary.entries():
        entry.of(entry_name).check(config_map_key)
        size += _decoded_size(entry)
    if size > DATA_MAX:
        field.fail(too_long("", DATA_MAX))
    return field.causes


def _validate_secret(secret: Object) -> Sequence[Cause]:
    field = Field.root(secret)
    data = field["data"]
    size = 0
    for entry_name, entry in data.entries():
        entry.of(entry_name).check(config_map_key)
        size += _decoded_size(entry)
    if size > DATA_MAX:
        field.fail(too_long("data", DATA_MAX))
    secret_type = field["type"].text
    if secret_type == "kubernetes.io/service-account-token":
        account = "kubernetes.io/service-account.name"
        Field(
            (field["metadata"]["annotations"].value or {}).get(account),
            f"metadata.annotations[{account}]",
            field.causes,
        ).required()
    if secret_type == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data.value or ()):
        for needed in ("username", "password"):
            Field(None, f"data[{needed}]", field.causes).required()
    for needed in _NEEDED_KEYS.get(secret_type, ()):
        if needed not in (data.value or ()):
            Field(None, f"data[{needed}]", field.causes).required()
        elif secret_type in _JSON_TYPES:
            _json_object(Field(data.value[needed], f"data[{needed}]", field.causes))
    return field.causes


def _json_object(entry: Field) -> None:
    """The content must be a JSON object; the message must not show it."""
    try:
        content = base64.b64decode(entry.text, validate=True)
    except (binascii.Error, ValueError):
        return
    fault = _json_fault(content.decode(errors="replace"))
    if fault:
        entry.of("<secret contents redacted>").invalid(fault)


def _json_fault(text: str) -> str:
    """What Go says of the text; empty when it is a JSON object."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()):
            return "unexpected end of JSON input"
        return f"invalid character '{text[error.pos]}' looking for beginning of value"
    if value is None or isinstance(value, dict):
        return ""
    kind = {list: "array", str: "string", bool: "bool"}.get(type(value), "number")
    return f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"


def _validate_update(new: Object, old: Object) -> Sequence[Cause]:
    field, before = Field.root(new), Field.root(old)
    if old.get("immutable") is True:
        if new.get("immutable") is not True:
            field["immutable"].forbidden(_FROZEN)
        for part in ("data", "binaryData"):
            if not same(new.get(part), old.get(part)):
                field[part].forbidden(_FROZEN)
    field["type"].unchanged(before["type"])
    return field.causes


def _default_secret(secret: Object) -> None:
    if not secret.get("type"):
        secret["type"] = "Opaque"
    # Write-only convenience: plain text that ends up in `data`.
    plain = secret.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


def _decoded_size(entry: Field) -> int:
    """Bytes the base64 text stands for; text that is none is a fault."""
    try:
        return len(base64.b64decode(entry.text, validate=True))
    except (binascii.Error, ValueError):
        entry.invalid("must be base64 encoded")
        return 0


def _config_map_row(config_map: Object, now: datetime) -> Sequence[object]:
    count = len(config_map.get("data") or ()) + len(config_map.get("binaryData") or ())
    return name(config_map), count, age(config_map, now)


def _secret_row(secret: Object, now: datetime) -> Sequence[object]:
    return name(secret), secret.get("type", ""), len(secret.get("data") or ()), age(secret, now)


CONFIG_MAP = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    namespaced=True,
    short_names=("cm",),
    columns=(NAME, Column("Data", documents="io.k8s.api.core.v1.ConfigMap.data"), AGE),
    row=_config_map_row,
    validate=_validate_config_map,
    validate_update=_validate_update,
    fields=selectable_fields(),
)

SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    namespaced=True,
    columns=(
        NAME,
        Column("Type", documents="io.k8s.api.core.v1.Secret.type"),
        Column("Data", documents="io.k8s.api.core.v1.Secret.data"),
        AGE,
    ),
    row=_secret_row,
    default=_default_secret,
    validate=_validate_secret,
    validate_update=_validate_update,
    fields=selectable_fields("type"),
)
