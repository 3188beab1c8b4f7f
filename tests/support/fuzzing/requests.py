"""One operation -> one request, more or less as its schema has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Any

import orjson
from support.fuzzing.answers import ADMIN
from support.fuzzing.operations import Operation
from support.fuzzing.samples import samples
from support.fuzzing.values import TEXTS, Values, mutated

from controlplane.apiserver.messages import ApiRequest

_VARIABLE = re.compile(r"\{(\w+)\}")
_NAMES = {"CustomResourceDefinition": "things.fuzz.io", "APIService": "v1.a.b", "ServiceCIDR": "kubernetes"}
"""Kinds whose names say something."""
_PATCHES = (
    "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)  # fmt: skip
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "allowWatchBookmarks": ("true", "false", "", "maybe"),
    "command": ("sh", "", "\0", "x" * 5000),
    "container": ("web", "", "no", "é"),
    "continue": ("", "x", "e30", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0", "é",
    "=", "A" * 3000),
    "dryRun": ("All", "", "None", "all"),
    "fieldManager": ("fuzz", "", "x" * 129, "\0", "a\nb", "é"),
    "fieldSelector": ("metadata.name=x", "metadata.name!=x", "spec.nodeName=", "a", "=",
    "metadata.namespace=default", "\\", "a==b,"),
    "fieldValidation": ("Strict", "Warn", "Ignore", "", "strict"),
    "force": ("true", "false", "", "x"),
    "gracePeriodSeconds": ("0", str(2**63 - 1), str(-(2**63)), "1", "-1", "x", "", "9" * 30, "9" * 5000),
    "includeObject": ("None", "Metadata", "Object", "x", ""),
    "labelSelector": ("a=b", "a in (b,c),!d", "a>1", "a>x", "!", "(", ",", "a notin ()", "é=1", "a=b=c",
    "a>" + "9" * 5000),
    "limit": ("1", "0", "-1", "x", "9" * 30, "9" * 5000, "1_0", "٣", " 1"),
    "limitBytes": ("1", "-1", "x", "9" * 400),
    "orphanDependents": ("true", "false", "x"),
    "path": ("/", "..", "\0"),
    "ports": ("80", "x", "-1", "9" * 400, "80,81"),
    "pretty": ("true", "x"),
    "propagationPolicy": ("Orphan", "Background", "Foreground", "x", ""),
    "resourceVersion": ("0", "1", "", "x", "-1", "9" * 18, str(2**64 - 1), "9" * 30, "9" * 5000, "1.5",
    "٣", "01"),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "x", ""),
    "sendInitialEvents": ("true", "false", "", "x"),
    "sinceSeconds": ("1", "-1", "9" * 400, "x"),
    "sinceTime": ("2026-01-01T00:00:00Z", "x", ""),
    "tailLines": ("1", "-1", "x", "9" * 400),
    "timeout": ("1s", "x", "-1s", "9" * 400 + "h", "1ns", "0", ""),
    "timeoutSeconds": ("1", str(2**63 - 1), "0", "-1", "x", "9" * 30, "9" * 400),
    "watch": ("true", "false", "", "1", "0"),
}  # fmt: skip
_ACCEPTS = (
    "application/json", "*/*", "", "application/yaml", "text/html", "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/json;as=Table;v=v9;g=meta.k8s.io",
    "application/json;as=é", ";;;", "application/json;stream=watch",
)  # fmt: skip


class Requests:
    """Makes requests for operations. `known` are objects by kind that served well before."""

    def __init__(self, random: Random, names: int = 3) -> None:
        self._random = random
        self._names = [f"fuzz-{number}" for number in range(names)]
        self.known: dict[str, list[Any]] = {kind: [obj] for kind, obj in samples().items()}

    def of(self, operation: Operation) -> ApiRequest:
        random = self._random
        values = {
            "name": self._name(operation.kind),
            "namespace": random.choice(
                ("default", "default", "default", "fuzz") if random.random() < 0.9 else ("nowhere", "")
            ),
        }
        path = _VARIABLE.sub(lambda found: values.get(found[1], "x"), operation.path)
        headers = {"accept": random.choice(_ACCEPTS) if random.random() < 0.15 else "application/json"}
        body = b""
        if operation.method == "PATCH":
            kind = random.choice(_PATCHES)
            headers["content-type"] = kind
            body = orjson_bytes(self._patch(kind, operation, values))
        elif operation.body is not None or random.random() < 0.1:
            headers["content-type"] = "application/json"
            body = orjson_bytes(self._body(operation, values))
        return ApiRequest(operation.method, path, self._query(operation), headers, body, ADMIN)

    def learn(self, operation: Operation, obj: Any) -> None:
        """An object that was answered: a start for the next ones of its kind."""
        known = self.known.setdefault(operation.kind, [])
        known.append(obj)
        if len(known) > 20:
            known.pop(self._random.randrange(len(known)))

    def _name(self, kind: str) -> str:
        random = self._random
        if kind in _NAMES and random.random() < 0.7:
            return _NAMES[kind]
        return (
            random.choice(self._names)
            if random.random() < 0.9
            else random.choice(("x", "a.b", "A", "é", "x:y:z", "%41"))
        )

    def _query(self, operation: Operation) -> list[tuple[str, str]]:
        random = self._random
        names = [parameter["name"] for parameter in operation.parameters]
        if random.random() < 0.2:
            names = [*names, *_PARAMETERS]
        chosen = random.sample(names, min(len(names), random.choice((0, 0, 0, 1, 2))))
        query = [(name, random.choice(_PARAMETERS.get(name, TEXTS))) for name in chosen]
        if operation.method == "PATCH" and random.random() < 0.8:
            query.append(("fieldManager", "fuzz"))
        return query

    def _body(self, operation: Operation, names: Mapping[str, str]) -> Any:
        random = self._random
        known = self.known.get(operation.kind)
        if known and random.random() < 0.85:
            found = random.choice(known)
            for _ in range(random.choice((0, 0, 1, 1, 3))):
                found = mutated(random, found)
        else:
            found = Values(random, operation.schemas).of(operation.body or {})
        if isinstance(found, dict) and not operation.kind.endswith("Review") and random.random() < 0.95:
            metadata = found.get("metadata") if isinstance(found.get("metadata"), dict) else {}
            kept = {key: value for key, value in metadata.items() if random.random() < 0.2}
            found = {**found, "metadata": {**kept, "name": names["name"]}}
        return found

    def _patch(self, kind: str, operation: Operation, names: Mapping[str, str]) -> Any:
        random = self._random
        found = self._body(operation, names)
        if kind != _PATCHES[0]:
            if kind == _PATCHES[2] and random.random() < 0.4:
                found = directed(random, found)
            return found
        pointers = [
            "",
            "/",
            "/metadata/labels/a",
            "/spec",
            "/spec/replicas",
            "/a/b/c",
            "/metadata",
            "~",
            "/~2",
            "/0",
        ]
        pointers += [
            "/spec/containers/0",
            "/spec/containers/-",
            "/spec/ports/9999999999",
            "/metadata/finalizers/-1",
            "/status",
        ]
        return [
            {
                "op": random.choice(("add", "remove", "replace", "move", "copy", "test", "x")),
                "path": random.choice(pointers),
                "from": random.choice(pointers),
                "value": mutated(random, found),
            }
            for _ in range(random.choice((0, 1, 2, 5)))
        ]


def directed(random: Random, value: Any) -> Any:
    """Directives of strategic merge patches, where they belong and where they do not."""
    if isinstance(value, dict):
        found = {key: directed(random, held) for key, held in value.items()}
        if random.random() < 0.3:
            name = random.choice((*found, "containers", "ports"))
            directive = random.choice(
                ("$patch", "$retainKeys", f"$setElementOrder/{name}", f"$deleteFromPrimitiveList/{name}")
            )
            found[directive] = random.choice(
                ("delete", "replace", "merge", "x", [], ["a"], [{"name": "a"}], [None], 1, None, {})
            )
        return found
    if isinstance(value, list):
        return [directed(random, item) for item in value] + (
            [{"$patch": "delete", "name": "x"}] if random.random() < 0.2 else []
        )
    return value


def orjson_bytes(value: Any) -> bytes:
    """JSON, with whole numbers of any size."""
    import json

    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode("utf-8", "surrogatepass")
