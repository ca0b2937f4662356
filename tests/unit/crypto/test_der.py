# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.crypto import der
from regraft.errors import FormatError


@given(st.integers(-(2**200), 2**200))
def test_integers_come_back(value: int) -> None:
    assert der.integer(der.only(der.encode_integer(value), der.INTEGER, "it")) == value


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**40), max_size=6))
def test_object_identifiers_come_back(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, (first, second, *rest)))
    assert der.object_identifier(der.only(der.encode_object(dotted), der.OBJECT, "it")) == dotted


@given(st.integers(-631_152_000, 7_258_118_399))
def test_times_come_back(second: int) -> None:
    moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(seconds=second)
    assert der.time(der.Reader(der.encode_time(moment)).any()) == moment


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 65_536])
def test_lengths_come_back(size: int) -> None:
    assert der.only(der.encode(der.OCTET_STRING, bytes(size)), der.OCTET_STRING, "it").content == bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"\x04\x01",
        b"\x04\x80",
        b"\x04\x81\x01a",
        b"\x04\x82\x00\x80" + bytes(128),
        b"\x04\x85" + bytes(9),
    ],
)
def test_lengths_that_lie_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        der.Reader(data).any()


@pytest.mark.parametrize("data", [b"\x02\x00", b"\x02\x02\x00\x01", b"\x02\x02\xff\xff"])
def test_padded_integers_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        der.Reader(data).integer("it")


@pytest.mark.parametrize("data", [b"\x06\x00", b"\x06\x01\x80", b"\x06\x02\x80\x01", b"\x06\x41" + b"\x01" * 65])
def test_malformed_object_identifiers_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        der.Reader(data).object("it")


@pytest.mark.parametrize(
    "text",
    [b"260101000000", b"2601010000Z", b"261301000000Z", b"260101000000+0000", b"26010100000\xb2Z", b"-60101000000Z"],
)
def test_other_times_are_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        der.time(der.Reader(der.encode(der.UTC_TIME, text)).any())


def test_what_follows_is_refused() -> None:
    with pytest.raises(FormatError, match=r"more than it should hold \(at byte 2\)"):
        der.only(b"\x05\x00\x05\x00", der.NULL, "it")
