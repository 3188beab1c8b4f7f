"""The table of protobuf messages, loaded from the package's data file when first asked for.

Called by the decoder. The data is made by `protobuf_distill.py`; `protobuf_extensions.py` adds what that cannot know.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import orjson

from controlplane.schema import protobuf_extensions
from controlplane.schema.protobuf_shapes import Shape

__all__ = ["DATA", "MessageField", "Shape", "message", "names"]

DATA = Path(__file__).with_name("protobuf.json.gz")


@dataclass(frozen=True, slots=True)
class MessageField:
    """One field. `json` is empty for a struct that JSON inlines.

    `type` is a scalar (string, bytes, bool, int32, int64, double), a special type (Quantity, IntOrString, Time,
    MicroTime, RawJSON, Strings), a union of a schema and something else (`protobuf.UNIONS`) or the name of a message.
    """

    json: str
    shape: Shape
    type: str


@cache
def _data() -> Mapping[str, Mapping[str, tuple[str, str, str]]]:
    found: Mapping[str, Mapping[str, tuple[str, str, str]]] = orjson.loads(gzip.decompress(DATA.read_bytes()))
    return found


@cache
def message(name: str) -> Mapping[int, MessageField] | None:
    """A message's fields by number; None if there is no message of this name (`io.k8s.api.core.v1.Pod`)."""
    added = protobuf_extensions.MESSAGES.get(name)
    if added is not None:
        return {
            number: MessageField(json, Shape(shape), type_) for number, (json, shape, type_) in added.items()
        }
    rows = _data().get(name)
    if rows is None:
        return None
    return {
        int(number): MessageField(json, Shape(shape), type_) for number, (json, shape, type_) in rows.items()
    }


def names() -> list[str]:
    """The names of all messages."""
    return [*_data(), *protobuf_extensions.MESSAGES]
