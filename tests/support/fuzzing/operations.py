"""Every method of every path in the server's OpenAPI v3 documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from support.apiserver import Served

PREFIX = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class Operation:
    """`body` is the schema of the request's body; `schemas` are the document's, by name."""

    method: str
    path: str
    action: str
    kind: str
    parameters: Sequence[Mapping[str, Any]]
    body: Mapping[str, Any] | None
    schemas: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


async def operations(api: Served) -> list[Operation]:
    """In the documents' order, which is the same in every run."""
    index = await api.json("GET", "/openapi/v3")
    found: list[Operation] = []
    for name, entry in sorted(index["paths"].items()):
        if not name.startswith("api"):
            continue
        document = await api.json("GET", entry["serverRelativeURL"])
        schemas = document.get("components", {}).get("schemas", {})
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if method != "parameters":
                    found.append(_operation(method.upper(), path, operation, item, schemas))
    return found


def _operation(
    method: str, path: str, operation: Mapping[str, Any], item: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Operation:
    parameters = [*operation.get("parameters", ()), *item.get("parameters", ())]
    content = operation.get("requestBody", {}).get("content", {})
    return Operation(
        method,
        path,
        operation.get("x-kubernetes-action", ""),
        operation.get("x-kubernetes-group-version-kind", {}).get("kind", ""),
        [parameter for parameter in parameters if parameter.get("in") == "query"],
        next((media["schema"] for media in content.values()), None),
        schemas,
    )
