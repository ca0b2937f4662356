# SPDX-License-Identifier: Apache-2.0
"""JSON from a peer: one reading or none."""

from __future__ import annotations

import pytest

from regraft.errors import FormatError, LimitError
from regraft.formats.strict_json import parse


def test_a_document_is_read() -> None:
    assert parse(b'{"a": [1, 2.5, "x\\u00e9", true, {"b": {}}]}') == {"a": [1, 2.5, "xé", True, {"b": {}}]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a": 1} x',
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 9223372036854775808}',
        b'{"a": ' + b"9" * 100_000 + b"}",
        b'{"a": 0.' + b"9" * 100_000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"\\ud800": 1}',
        b'{"a": "\xff"}',
        b'{"a": "\n"}',
        b"{'a': 1}",
    ],
    ids=lambda text: text[:16].decode("latin-1"),
)
def test_what_two_readers_could_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (b"[" * 100_000, "settings|nesting"),
        (b"[" * 1000, "nesting"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nesting"),
        (b"[" + b"1," * 100_000 + b"1]", "settings"),
        (b'"' + b"x" * 300_000 + b'"', "string_length"),
        (b" " * (1 << 21), "description_size"),
    ],
)
def test_limits_hold_before_a_parser_recurses(text: bytes, limit: str) -> None:
    with pytest.raises(LimitError, match=limit):
        parse(text)


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    assert parse(b'["' + b"[" * 1000 + b'", "\\"[["]')[1] == '"[['  # type: ignore[index]
