"""How a field of a protobuf message holds its value: the vocabulary of the tables of messages."""

from __future__ import annotations

from enum import StrEnum

Row = tuple[str, str, str]
"""JSON name (empty for an inlined struct), Shape, type: a scalar, a special type or the name of a message."""


class Shape(StrEnum):
    """How a field holds its value, which says when JSON has it. The values are those of the data file."""

    PLAIN = ""
    """left out when zero (`omitempty`)"""
    ALWAYS = "!"
    """a zero scalar stays"""
    POINTER = "*"
    """present when sent, zero or not"""
    LIST = "[]"
    MAP = "{}"
