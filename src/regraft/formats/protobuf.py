# SPDX-License-Identifier: Apache-2.0
"""The wire format of Protocol Buffers, as far as dictionaries of chunks use it: fields in, fields out.

Follows the encoding chapter of the Protocol Buffers documentation. Groups, which proto3 does not have, are refused.
Every length is checked before it is used; offsets in errors are those of the outermost message.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from regraft.errors import FormatError
from regraft.model.buffers import Buffer

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_NAMES = {VARINT: "a number", FIXED64: "64 bits", BYTES: "bytes", FIXED32: "32 bits"}


class Message(NamedTuple):
    """The bytes of a message, `what` it is in errors, and where it starts."""

    data: memoryview
    what: str
    base: int = 0

    def fail(self, cause: str, position: int) -> FormatError:
        """An error at a position within the message, to be raised by the caller."""
        return FormatError(f"{self.what}: {cause}", offset=self.base + position)


#: (field number, wire type, value, its position): an int for VARINT, else the bytes.
Field: TypeAlias = tuple[int, int, "int | memoryview", int]


def message(data: Buffer, what: str, *, base: int = 0) -> Message:
    return Message(memoryview(data).cast("B"), what, base)


def fields(outer: Message) -> Iterator[Field]:
    """All fields of a message in the order in which they stand. Raises FormatError."""
    data, size = outer.data, len(outer.data)
    position = 0
    while position < size:
        tag, position = _varint(outer, position)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise outer.fail(f"a field with the number {number}", position)
        if kind == VARINT:
            start = position
            value, position = _varint(outer, position)
            yield number, kind, value, start
            continue
        if kind == BYTES:
            length, position = _varint(outer, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise outer.fail(f"field {number} has the wire type {kind}", position)
        if length > size - position:
            raise outer.fail(f"field {number} of {length} bytes, {size - position} are left", position)
        yield number, kind, data[position : position + length], position
        position += length


def _varint(outer: Message, position: int) -> tuple[int, int]:
    data = outer.data
    try:
        byte = data[position]
        if byte < 0x80:  # by far the most
            return byte, position + 1
        value, shift = byte & 0x7F, 7
        while True:
            position += 1
            byte = data[position]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= 70:
                raise outer.fail("a number of more than 10 bytes", position)
    except IndexError:
        raise outer.fail("it ends within a number", len(data)) from None
    if value >> 64:
        raise outer.fail("a number of more than 64 bits", position)
    return value, position + 1


def number(outer: Message, field: Field, bits: int) -> int:
    """The value of a field that is an unsigned number of so many bits. Raises FormatError."""
    name, kind, value, position = field
    if kind != VARINT or not isinstance(value, int):
        raise outer.fail(f"field {name} is {_NAMES[kind]} and not a number", position)
    if value >> bits:
        raise outer.fail(f"field {name} is {value}, more than {bits} bits", position)
    return value


def content(outer: Message, field: Field) -> memoryview:
    """The value of a field that is a string of bytes. Raises FormatError."""
    name, kind, value, position = field
    if kind != BYTES or isinstance(value, int):
        raise outer.fail(f"field {name} is {_NAMES[kind]} and not bytes", position)
    return value


def text(outer: Message, field: Field) -> str:
    """The value of a field that is UTF-8. Raises FormatError."""
    try:
        return str(content(outer, field), "utf-8")
    except UnicodeDecodeError:
        raise outer.fail(f"field {field[0]} is not UTF-8", field[3]) from None


def inner(outer: Message, field: Field, what: str) -> Message:
    """The message that is the value of a field. Raises FormatError."""
    return Message(content(outer, field), f"{outer.what}: {what}", outer.base + field[3])


def numbers(outer: Message, field: Field, bits: int, into: array[int], maximum: int) -> None:
    """Append a field of repeated numbers, packed or single. Raises FormatError, also for more than `maximum` of them.

    A reader has to take both: writers changed from one to the other.
    """
    if field[1] == VARINT:
        found: Iterable[int] = (number(outer, field, bits),)
    else:
        packed = inner(outer, field, f"field {field[0]}")
        found = _packed(packed, bits)
    for value in found:
        if len(into) >= maximum:
            raise outer.fail(f"more than {maximum} numbers in field {field[0]}", field[3])
        into.append(value)


def _packed(packed: Message, bits: int) -> Iterator[int]:
    position = 0
    while position < len(packed.data):
        value, position = _varint(packed, position)
        if value >> bits:
            raise packed.fail(f"{value} has more than {bits} bits", position)
        yield value


# -- encoding ---------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A number: base 128, low bits first, bit 7 set on all bytes but the last."""
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def number_field(name: int, value: int) -> bytes:
    """A number; nothing for 0, which is what proto3 takes for absent."""
    return varint(name << 3 | VARINT) + varint(value) if value else b""


def bytes_field(name: int, value: Buffer, *, always: bool = False) -> bytes:
    """Bytes, text or a message; nothing for empty ones unless `always`."""
    return varint(name << 3 | BYTES) + varint(len(value)) + value if value or always else b""
