"""Reads the type descriptions that Go's linker leaves in a program. Pure: bytes in, types out.

Called by `protobuf_distill.py` alone, never by the server. A Go program carries, for reflection, each struct's
fields with their types and tags; that is the same knowledge the source files hold. The layouts are those of
Go's `internal/abi` (type.go), unchanged from Go 1.18 on for what is read here. Only what kubectl is released
as is understood: a little-endian 64-bit ELF file that is not position-independent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

_KIND_MASK = 31
_STAR, _UNCOMMON, _NAMED = 2, 1, 4  # bits of a type's tflag
_TAGGED = 2  # bit of a name's first byte
_TYPE_SIZE = 48
_STRUCT_SIZE = 80


class GoKind(IntEnum):
    """reflect.Kind, as far as messages use it."""

    BOOL = 1
    INT32 = 5
    INT64 = 6
    UINT8 = 8
    MAP = 21
    POINTER = 22
    SLICE = 23
    STRING = 24
    STRUCT = 25


@dataclass(frozen=True, slots=True)
class GoField:
    name: str
    tag: str
    embedded: bool
    type: GoType


class GoType:
    """One type at an address of the program; its parts are read when asked for."""

    def __init__(self, program: GoProgram, address: int) -> None:
        self._program = program
        self._address = address
        _, _, _, self._flags, _, _, kind, _, _, text, _ = program.unpack("<QQIBBBBQQii", address)
        self._kind = kind & _KIND_MASK
        self._text = text

    @property
    def kind(self) -> int:
        """A reflect.Kind; those a message never has are not in GoKind."""
        return self._kind

    @property
    def named(self) -> bool:
        return bool(self._flags & _NAMED)

    @cached_property
    def text(self) -> str:
        """As Go prints it, with the last part of the package: `v1.Pod`, `[]string`."""
        text, _, _ = self._program.name_at(self._program.types + self._text)
        return text[1:] if self._flags & _STAR else text

    @property
    def name(self) -> str:
        """Without the package."""
        return self.text.rpartition(".")[2]

    @cached_property
    def package(self) -> str:
        """The import path of a named struct; empty for all others."""
        if self._kind != GoKind.STRUCT or not self._flags & _UNCOMMON:
            return ""
        (path,) = self._program.unpack("<i", self._address + _STRUCT_SIZE)
        return self._program.name_at(self._program.types + path)[0]

    @property
    def element(self) -> GoType:
        """What a pointer points to, a slice's item, a map's value."""
        skip = 8 if self._kind == GoKind.MAP else 0
        (address,) = self._program.unpack("<Q", self._address + _TYPE_SIZE + skip)
        return GoType(self._program, address)

    @property
    def key(self) -> GoType:
        """The type of a map's keys."""
        (address,) = self._program.unpack("<Q", self._address + _TYPE_SIZE)
        return GoType(self._program, address)

    def fields(self) -> Iterator[GoField]:
        """The fields of a struct."""
        first, count = self._program.unpack("<QQ", self._address + _TYPE_SIZE + 8)
        for index in range(count):
            name, address, _ = self._program.unpack("<QQQ", first + 24 * index)
            text, tag, embedded = self._program.name_at(name)
            yield GoField(text, tag, embedded, GoType(self._program, address))


class GoProgram:
    """A Go program's bytes. Raises ValueError for what is not one, or is built in a way not understood."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        if program[:6] != b"\x7fELF\x02\x01" or program[16:18] != b"\x02\x00":
            raise ValueError("not a little-endian 64-bit ELF program at fixed addresses")
        sections = _sections(program)
        try:
            self.types, self._offset, self._size = sections[".rodata"]
            _, self._links, self._links_size = sections[".typelink"]
        except KeyError as error:
            raise ValueError(f"no section {error}: not a Go program") from error

    def structs(self) -> Iterator[GoType]:
        """The structs somewhere pointed to."""
        for place in range(self._links, self._links + self._links_size, 4):
            (offset,) = struct.unpack_from("<i", self._program, place)
            found = GoType(self, self.types + offset)
            if found.kind == GoKind.POINTER and found.element.kind == GoKind.STRUCT:
                yield found.element

    def unpack(self, layout: str, address: int) -> tuple[int, ...]:
        """Numbers at an address of the read-only data, which is where all types are."""
        return struct.unpack_from(layout, self._program, self._place(address))

    def name_at(self, address: int) -> tuple[str, str, bool]:
        """A name, its tag, and whether it is that of an embedded field."""
        place = self._place(address)
        flags = self._program[place]
        name, place = self._text(place + 1)
        tag = self._text(place)[0] if flags & _TAGGED else ""
        return name, tag, bool(flags & 8)

    def _text(self, place: int) -> tuple[str, int]:
        length = shift = 0
        while True:
            byte = self._program[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return self._program[place : place + length].decode(), place + length

    def _place(self, address: int) -> int:
        if not 0 <= address - self.types < self._size:
            raise ValueError(f"address {address:#x} is outside of the program's read-only data")
        return address - self.types + self._offset


def _sections(program: bytes) -> dict[str, tuple[int, int, int]]:
    """Name -> (address, offset in the file, size), from the ELF section headers."""
    (table,) = struct.unpack_from("<Q", program, 40)
    size, count, names_index = struct.unpack_from("<HHH", program, 58)
    headers = [struct.unpack_from("<IIQQQQ", program, table + size * index) for index in range(count)]
    names = headers[names_index][4]
    found = {}
    for name, _, _, address, offset, length in headers:
        start = names + name
        found[program[start : program.index(b"\0", start)].decode()] = (address, offset, length)
    return found
