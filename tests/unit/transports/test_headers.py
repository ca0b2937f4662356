# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from regraft.errors import FormatError
from regraft.transports.headers import (
    Validator,
    multipart_boundary,
    parse_content_range,
    parse_length,
    parse_retry_after,
    parse_unsatisfied,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-0/1", (0, 1, 1)),
        ("bytes 5-9/*", (5, 10, None)),
        ("BYTES  5 - 9 / 10", (5, 10, 10)),
        ("bytes=5-9/10", (5, 10, 10)),
        ("bytes 0-9223372036854775806/9223372036854775807", (0, 2**63 - 1, 2**63 - 1)),
    ],
)
def test_content_range(text: str, found: tuple[int, int, int | None]) -> None:
    assert parse_content_range(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "bytes", "bytes 1-0/5", "bytes 0-5/5", "bytes -5/5", "bytes 0-/5", "bytes */5", "bytes 0-1/5 x", "bytes ٣-٤/9",
     "bytes 0-" + "9" * 30 + "/*", "x" * 100_000],
)  # fmt: skip
def test_content_range_that_is_none(text: str) -> None:
    with pytest.raises(FormatError):
        parse_content_range(text)


def test_unsatisfied_tells_the_size() -> None:
    assert parse_unsatisfied("bytes */77") == 77
    assert parse_unsatisfied("bytes 0-1/77") is None
    assert parse_unsatisfied(None) is None


def test_length() -> None:
    assert parse_length("12") == 12
    for text in ("", "-1", "1e3", "²", "1" * 30, None):
        assert parse_length(text) is None


def test_retry_after_is_never_negative_and_never_nonsense() -> None:
    assert parse_retry_after("5", 0) == 5
    assert parse_retry_after("-5", 0) == 0
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10) == 50
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 100) == 0
    for text in (None, "", "nan", "inf", "soon", "1e9", "x" * 5000, "Thu, 99 Jan 1970 99:99:99 GMT"):
        assert parse_retry_after(text, 0) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, None),
        ("text/html; boundary=x", None),
        ("multipart/byteranges", b""),
        ("multipart/byteranges;boundary=x", b"x"),
        ('MULTIPART/byteranges; a=b; Boundary="x y"', b"x y"),
        ("multipart/byteranges; boundary='x'", b"x"),
    ],
)
def test_boundary(text: str | None, found: bytes | None) -> None:
    assert multipart_boundary(text) == found


def test_only_a_strong_etag_or_the_date_serves_for_if_range() -> None:
    assert Validator.of({"etag": '"a"', "last-modified": "now"}).if_range == '"a"'
    assert Validator.of({"etag": 'W/"a"', "last-modified": "now"}).if_range == "now"
    assert Validator.of({"etag": "a", "last-modified": "now"}).if_range == "now"
    assert Validator.of({"etag": '"a\r\nX: y"', "last-modified": "a\r\nX: y"}).if_range == ""
