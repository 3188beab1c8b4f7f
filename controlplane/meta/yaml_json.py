"""YAML as JSON values, with what Go's converter would say about them.

Called wherever Kubernetes' programs read YAML: bodies of requests, configuration files. Aliases are counted before
anything is made of them: a short text can stand for gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import yaml

_MAX_VALUES = 1_000_000
"""Values a document may have once its aliases are written out."""
_MAX_DEPTH = 250


@dataclass(frozen=True, slots=True)
class JsonValue:
    """`repeated`: one line for each key that is there twice, as Go's decoder words it; the last one counts."""

    value: Any
    repeated: Sequence[str] = ()


class _JsonLoader(yaml.CSafeLoader):
    """YAML as JSON has it: dates and binaries stay text, keys are texts. Collects repeated keys."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []


def _mapping(loader: _JsonLoader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _key(loader.construct_object(key_node, deep=True))
        if key in found:
            line = key_node.start_mark.line + 1
            loader.repeated.append(f"line {line}: key {orjson.dumps(key).decode()} already set in map")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise ValueError("error converting YAML to JSON: unsupported map key")


_JsonLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _integer(loader: _JsonLoader, node: yaml.ScalarNode) -> int | float:
    """What needs more than 64 bits is a float, as in JSON here and in Go."""
    number: int = loader.construct_yaml_int(node)
    return number if -(2**63) <= number < 2**64 else float(number)


def _text(loader: _JsonLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


def _sequence(loader: _JsonLoader, node: yaml.SequenceNode) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


_JsonLoader.add_constructor("tag:yaml.org,2002:int", _integer)
_JsonLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_JsonLoader.add_constructor("tag:yaml.org,2002:set", _mapping)
_JsonLoader.add_constructor("tag:yaml.org,2002:timestamp", _text)
for _tag in ("omap", "pairs"):
    _JsonLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _sequence)


def parse(body: bytes) -> JsonValue:
    """The one document of a body; None for an empty one. Raises ValueError."""
    loader = _JsonLoader(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return JsonValue(None)
        _check_size(node)
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise ValueError(f"error converting YAML to JSON: yaml: line {line}: {fault.problem}") from fault
    except (KeyError, AttributeError, IndexError, OverflowError) as fault:
        # The library's own constructors, for scalars that are not what their tags say.
        raise ValueError(
            "error converting YAML to JSON: yaml: cannot decode a value as its tag says"
        ) from fault
    except (yaml.YAMLError, RecursionError) as fault:
        raise ValueError(f"error converting YAML to JSON: yaml: {fault}") from fault
    finally:
        loader.dispose()
    return JsonValue(value, tuple(loader.repeated))


def _check_size(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise ValueError("error converting YAML to JSON: yaml: anchor value contains itself")
        if depth > _MAX_DEPTH:
            raise ValueError("error converting YAML to JSON: yaml: exceeded max depth")
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(key, depth + 1) + size(value, depth + 1) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item, depth + 1) for item in node.value)
        elif node.tag == "tag:yaml.org,2002:float" and not _is_finite(node.value):
            raise ValueError(f"error converting YAML to JSON: json: unsupported value: {node.value}")
        if total > _MAX_VALUES:
            raise ValueError("error converting YAML to JSON: yaml: document contains excessive aliasing")
        open_nodes.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root, 0)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan")))
    except ValueError:
        return True
