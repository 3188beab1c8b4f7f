"""Values that fit a schema, mostly: a seeded generator that now and then says something else."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from support.fuzzing.operations import PREFIX

TEXTS = (
    "", "a", "web", "default", "kube-system", "x/y", "Bad Name", "10.0.0.1", "10.0.0.0/8", "fd00::/64",
    "::1", "*", "80",
    "50%", "100m", "-1", "1Gi", "1e9999", "1" * 400, "2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z",
    "Always", "TCP",
    "None", "true", "YQ==", "=", "%", "%s%n", "..", "../../etc", "\0", "\n", "\u2028", "\U0001f980",
    "A" * 300, "a" * 64,
    "RollingUpdate", "ClusterIP", "0", "self.x == 1", "$(", "(" * 40, "{}", "/", "//", ".", "-",
    "a=b,c in (d)", "b.c/d",
    "0 0 * * *", "@every 1s", "999999999999999999999999", "-----BEGIN CERTIFICATE-----", "é", "null",
    "https://x", "*.a.b",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    80,
    255,
    65535,
    65536,
    2**31 - 1,
    2**31,
    -(2**31) - 1,
    2**53,
    2**63 - 1,
    2**63,
    -(2**63),
    10**30,
)
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**63, "", "x", [], {}, [None], {"a": None}, [[]], {"": ""},
    [{}], {"a": {"b": [1]}},
)  # fmt: skip
MAX_DEPTH = 7


class Values:
    """`odd`: how often a value is of another type than its schema wants."""

    def __init__(self, random: Random, schemas: Mapping[str, Any], odd: float = 0.01) -> None:
        self._random = random
        self._schemas = schemas
        self._odd = odd

    def of(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        random = self._random
        if random.random() < self._odd:
            return random.choice(ODD)
        schema = self._resolved(schema)
        kind = schema.get("type")
        if "oneOf" in schema:
            kind = random.choice(schema["oneOf"]).get("type", "string")
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                size = 0 if depth > MAX_DEPTH else random.choice((0, 1, 1, 2))
                return [self.of(schema.get("items", {}), depth + 1) for _ in range(size)]
            case "string":
                return random.choice(schema.get("enum") or TEXTS)
            case "integer":
                return random.choice(NUMBERS if random.random() < 0.3 else (0, 1, 2, 3, 80))
            case "number":
                return random.choice((0, 1.5, -0.0, 1e308))
            case "boolean":
                return random.random() < 0.5
        return random.choice(ODD)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while True:
            reference = schema.get("$ref")
            if reference is None and schema.get("allOf"):
                reference = schema["allOf"][0].get("$ref")
            if not isinstance(reference, str):
                return schema
            schema = self._schemas[reference.removeprefix(PREFIX)]

    def _object(self, schema: Mapping[str, Any], depth: int) -> Any:
        random = self._random
        properties = schema.get("properties") or {}
        rest = schema.get("additionalProperties")
        found: dict[str, Any] = {}
        if properties:
            wanted = set(schema.get("required") or ())
            count = random.choice((0, 1, 2, 4)) if depth <= MAX_DEPTH else 0
            wanted.update(random.sample(sorted(properties), min(count, len(properties))))
            found = {
                name: self.of(properties[name], depth + 1)
                for name in sorted(wanted)
                if name in properties and name not in ("apiVersion", "kind")
            }
        elif isinstance(rest, Mapping):
            found = {random.choice(TEXTS): self.of(rest, depth + 1) for _ in range(random.choice((0, 1, 2)))}
        if random.random() < self._odd:
            found[random.choice(TEXTS)] = random.choice(ODD)
        return found


def mutated(random: Random, value: Any) -> Any:
    """`value` with one place in it changed, taken away or doubled."""
    places = [((), value)]
    for path, held in places:
        if len(places) > 400:
            break
        if isinstance(held, dict):
            places += [((*path, key), held[key]) for key in held]
        elif isinstance(held, list):
            places += [((*path, at), item) for at, item in enumerate(held)]
    path, _ = random.choice(places[1:] or places)
    return _changed(random, value, path)


def _changed(random: Random, value: Any, path: tuple[Any, ...]) -> Any:
    if not path:
        return random.choice((*ODD, *TEXTS, *NUMBERS))
    here, rest = path[0], path[1:]
    if isinstance(value, dict):
        if not rest and random.random() < 0.25:
            return {key: held for key, held in value.items() if key != here}
        return {key: _changed(random, held, rest) if key == here else held for key, held in value.items()}
    items = list(value)
    if not rest and random.random() < 0.25:
        items.insert(here, items[here])
    else:
        items[here] = _changed(random, items[here], rest)
    return items
