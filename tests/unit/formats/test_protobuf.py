# SPDX-License-Identifier: Apache-2.0
"""The wire format of Protocol Buffers: every field is checked before it is believed."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.errors import FormatError
from regraft.formats import protobuf
from regraft.formats.protobuf import bytes_field, fields, message, number_field, varint


def parsed(data: bytes) -> list[tuple[int, int, object]]:
    found = fields(message(data, "test"))
    return [(name, kind, value if isinstance(value, int) else bytes(value)) for name, kind, value, _ in found]


def test_the_examples_of_the_documentation() -> None:
    assert parsed(bytes.fromhex("089601")) == [(1, 0, 150)]
    assert parsed(bytes.fromhex("120774657374696e67")) == [(2, 2, b"testing")]
    assert number_field(1, 150) + bytes_field(2, b"testing") == bytes.fromhex("089601120774657374696e67")


@given(st.integers(0, (1 << 64) - 1), st.integers(1, (1 << 29) - 1))
def test_a_number_comes_back(value: int, name: int) -> None:
    assert parsed(varint(name << 3) + varint(value)) == [(name, 0, value)]
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))


@given(st.lists(st.binary(max_size=300)))
def test_bytes_come_back(values: list[bytes]) -> None:
    data = b"".join(bytes_field(3, value, always=True) for value in values)
    assert parsed(data) == [(3, 2, value) for value in values]


def test_defaults_are_not_written() -> None:
    assert number_field(1, 0) == bytes_field(2, b"") == b""
    assert bytes_field(5, b"", always=True) == b"\x2a\0"


def test_fixed_widths_are_passed_over() -> None:
    assert parsed(b"\x09" + bytes(8) + b"\x0d" + bytes(4) + b"\x10\x05") == [
        (1, 1, bytes(8)),
        (1, 5, bytes(4)),
        (2, 0, 5),
    ]


REPEATED = (b"\x32\x04\x00\x01\x96\x01", b"\x30\x00\x30\x01\x30\x96\x01", b"\x30\x00\x32\x03\x01\x96\x01")


def repeated(data: bytes, maximum: int) -> list[int]:
    outer, into = message(data, "test"), array("I")
    for field in fields(outer):
        protobuf.numbers(outer, field, 32, into, maximum)
    return list(into)


@pytest.mark.parametrize("data", REPEATED)
def test_repeated_numbers_are_packed_or_not(data: bytes) -> None:
    assert repeated(data, 3) == [0, 1, 150]
    with pytest.raises(FormatError, match="more than 2 numbers"):
        repeated(data, 2)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"\x08", "ends within a number"),
        (b"\x08\xff", "ends within a number"),
        (b"\xff" * 11, "more than 10 bytes"),
        (b"\x08" + b"\xff" * 9 + b"\x7f", "more than 64 bits"),
        (b"\x00\x01", "number 0"),
        (b"\x12\x05abc", "5 bytes, 3 are left"),
        (b"\x12" + varint(1 << 63), "are left"),
        (b"\x09\0\0", "8 bytes, 2 are left"),
        (b"\x0b", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (varint(1 << 32) + b"\0", "the number 536870912"),
    ],
)
def test_a_malformed_message_is_refused(data: bytes, cause: str) -> None:
    with pytest.raises(FormatError, match=cause):
        parsed(data)


def test_values_have_their_kind_and_size() -> None:
    outer = message(b"\x08\x05\x12\x01\xff\x18\x80\x80\x80\x80\x10", "test", base=100)
    small, text, large = fields(outer)
    assert protobuf.number(outer, small, 32) == 5
    with pytest.raises(FormatError, match=r"not bytes \(at byte 101\)"):
        protobuf.content(outer, small)
    with pytest.raises(FormatError, match="not a number"):
        protobuf.number(outer, text, 32)
    with pytest.raises(FormatError, match="UTF-8"):
        protobuf.text(outer, text)
    with pytest.raises(FormatError, match="32 bits"):
        protobuf.number(outer, large, 32)
    assert protobuf.number(outer, large, 64) == 1 << 32
    with pytest.raises(FormatError, match="32 bits"):
        protobuf.numbers(outer, (6, 2, memoryview(varint(1 << 32)), 0), 32, array("I"), 9)
