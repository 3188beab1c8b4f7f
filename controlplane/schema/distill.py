"""Makes this package's data file from the PyPI package `kubernetes-validate` (a development dependency).

    python -m controlplane.schema.distill [VERSION]

Run by hand when the served Kubernetes version moves. That package carries the whole definition set of a
release as JSON Schema; here it becomes OpenAPI v3 schemas as an API server serves them. Both are Kubernetes'
own definitions under Apache-2.0. The server never imports this module.
"""

from __future__ import annotations

import gzip
import importlib.resources
import sys
from typing import Any

import orjson

from controlplane.errors import Object
from controlplane.schema.definitions import DATA

VERSION = "v1.32.0"
_OLD, _NEW = "#/$defs/", "#/components/schemas/"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"

_RESTORED: Object = {
    _INT_OR_STRING: {
        "description": "IntOrString is a type that can hold an int32 or a string. When used in JSON or YAML "
        "marshalling and unmarshalling, it produces or consumes the inner type. This allows you to have, for "
        "example, a JSON field that can accept a name or number.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    _QUANTITY: {
        "description": "Quantity is a fixed-point representation of a number, written as a decimal number "
        "with a binary suffix (Ki, Mi, Gi, Ti, Pi, Ei), a decimal suffix (n, u, m, k, M, G, T, P, E) or a "
        "decimal exponent (e3).",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
}
"""Two types whose own schema the source has lost; without it their text would be empty."""


def distill(definitions: Object) -> Object:
    """OpenAPI v3 schemas by full type name, from the source's `$defs`."""
    return {name: _RESTORED.get(name) or _schema(found) for name, found in definitions.items()}


def _schema(source: Object) -> Object:
    """One schema: `null` types and the enums of apiVersion and kind dropped, references rewritten.

    Properties are walked by name and keywords by keyword: JSONSchemaProps has a property called `$ref`.
    """
    schema: Object = {}
    for keyword, value in source.items():
        if keyword == "$ref":
            reference = {"$ref": value.replace(_OLD, _NEW)}
            # OpenAPI v3 ignores what stands beside a reference, the description among it.
            schema.update(reference if len(source) == 1 else {"allOf": [reference]})
        elif keyword == "properties":
            schema[keyword] = {name: _schema(found) for name, found in value.items()}
        elif keyword in ("items", "additionalProperties") and isinstance(value, dict):
            schema[keyword] = _schema(value)
        elif keyword == "type":
            schema[keyword] = _type(value)
        elif keyword != "enum":
            schema[keyword] = value
    return schema


def _type(value: Any) -> str:
    if isinstance(value, str):
        return value
    found = [word for word in value if word != "null"]
    if len(found) != 1:
        raise ValueError(f"a schema has the types {value}, which OpenAPI v3 cannot say")
    return str(found[0])


def main(arguments: list[str]) -> None:
    version = arguments[0] if arguments else VERSION
    package = importlib.resources.files("kubernetes_validate")
    source = package / "kubernetes-json-schema" / f"{version}-local" / "_definitions.json"
    schemas = distill(orjson.loads(source.read_bytes())["$defs"])
    data = orjson.dumps({"version": version, "schemas": schemas}, option=orjson.OPT_SORT_KEYS)
    # Without a time stamp the same input gives the same file.
    DATA.write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{DATA.name}: {len(schemas)} types of {version}, {DATA.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
