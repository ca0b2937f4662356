# SPDX-License-Identifier: Apache-2.0
"""libconfig's language: what it means, what is refused and where."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import pytest

from regraft.errors import FormatError, LimitError, RegraftError, UnsupportedError
from regraft.formats.libconfig import dump, parse
from regraft.limits import DEFAULT, MIB


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 1;", 1),
        ("a : 1", 1),
        ("a = -17,", -17),
        ("a = +5;", 5),
        ("a = 0x1F;", 31),
        ("a = 0XffL;", 255),
        ("a = 4294967296L;", 1 << 32),
        ("a = 4294967296LL;", 1 << 32),
        ("a = 9223372036854775807;", (1 << 63) - 1),
        ("a = 1.5;", 1.5),
        ("a = .5;", 0.5),
        ("a = 3.;", 3.0),
        ("a = -1e3;", -1000.0),
        ("a = 1.5E-2;", 0.015),
        ("a = true;", True),
        ("a = FALSE;", False),
        ('a = "";', ""),
        ('a = "x" "y"\n"z";', "xyz"),
        (r'a = "\\\"\n\r\t\f\x41";', '\\"\n\r\t\fA'),
        (r'a = "\a\b\v";', "\a\b\v"),
        (r'a = "\q\x4";', "\\q\\x4"),
        (r'a = "\\x41\\\\";', "\\x41\\\\"),
        (r'a = "\x5cn";', "\\n"),
        (r'a = "\xc3\xa4";', "ä"),
        ('a = "ä\nb";', "ä\nb"),
        ("a = {};", {}),
        ("a : { b = 1; c = { d = 2 } };", {"b": 1, "c": {"d": 2}}),
        ("a = ();", []),
        ('a = (1, "x", (2.0), { b = [true] });', [1, "x", [2.0], {"b": (True,)}]),
        ("a = [];", ()),
        ("a = [1, 2];", (1, 2)),
        ("a = (1, 2, );", [1, 2]),
        ("a = /* ( */ 1 // ;\n # }\n;", 1),
    ],
)
def test_a_value_is_read_as_the_manual_says(text: str, value: object) -> None:
    read = parse(text.encode())["a"]
    assert read == value
    assert type(read) is type(value)


def test_settings_keep_the_order_of_the_file() -> None:
    assert list(parse(b"z=1 a=2; m=3, *x-1_=4")) == ["z", "a", "m", "*x-1_"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a", 1, 2),
        ("a = ;", 1, 5),
        ("a = 1;\nb == 2;", 2, 4),
        ("a = 1;;", 1, 7),
        ("a = {\n b = 1;", 2, 8),
        ("a = (1 2);", 1, 8),
        ("a = [1, 2.0];", 1, 9),
        ("a = [1, true];", 1, 9),
        ("a = [{}];", 1, 6),
        ("a = (,);", 1, 6),
        ("1 = a;", 1, 1),
        ("a = 007;", 1, 5),
        ("a = 1.2.3;", 1, 5),
        ("a = .;", 1, 5),
        ("a = nan;", 1, 5),
        ("a = 1e999;", 1, 5),
        ("a = 9223372036854775808;", 1, 5),
        ("a = 0x8000000000000000;", 1, 5),
        ("a = -;", 1, 5),
        ('a = "x', 1, 5),
        ('a = "\\', 1, 5),
        ("a = 1; /* x", 1, 8),
        ("a = 1;\n  a = 2;", 2, 3),
        ("a = { b = 1; b = 2; };", 1, 14),
        ("\ufeffa = 1;", 1, 1),
        ("a = '1';", 1, 5),
    ],
)
def test_a_fault_is_reported_with_line_and_column(text: str, line: int, column: int) -> None:
    with pytest.raises(FormatError, match=rf"in line {line}, column {column}\b") as caught:
        parse(text.encode())
    assert caught.value.cure


@pytest.mark.parametrize("text", [b'a = "\xff";', b'a = "\\xff";', b'a = "\\x00";', b'a = "\0";', b"a = 1;\0", b"\xff"])
def test_no_nul_and_nothing_but_utf8_is_taken(text: bytes) -> None:
    with pytest.raises(FormatError):
        parse(text)


def test_include_is_refused_as_a_feature() -> None:
    with pytest.raises(UnsupportedError, match="line 2"):
        parse(b'a = 1;\n@include "/etc/passwd"\n')


def test_a_trailing_comma_is_refused_on_request() -> None:
    assert parse(b"a = (1, 2);", trailing_commas=False) == {"a": [1, 2]}
    with pytest.raises(FormatError, match="comma after the last element"):
        parse(b"a = (1, 2, );", trailing_commas=False)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (b"a = 1; " + b" " * 100, "description_size"),
        (b"a = ((((1))));", "nesting"),
        (b"a = (1,2,3,4,5,6);", "settings"),
        (b'a = "" "" "" "" "" "" "";', "settings"),
        (b'a = "0123456789abcdefg";', "string_length"),
        (b'a = "01234567" "89abcdefg";', "string_length"),
        (b"abcdefghi = 1;", "name_length"),
        (b'abcdefghi = { b = "x"; };', "name_length"),
    ],
)
def test_limits_hold_and_are_named(text: bytes, limit: str) -> None:
    tight = dataclasses.replace(DEFAULT, description_size=64, nesting=3, settings=6, string_length=16, name_length=8)
    with pytest.raises(LimitError, match=limit):
        parse(text, limits=tight)


@pytest.mark.parametrize(
    "text",
    [
        b"a=" + b"(" * (MIB - 2),
        b"a=" + b"{a=" * (MIB // 4),
        b"a=" + b"9" * (MIB - 2),
        b"a=0x" + b"f" * (MIB - 4),
        b"a=." + b"9" * (MIB - 3),
        b'a="' + b"x" * (MIB - 3),
        b'a="' + b"\\n" * (MIB // 2 - 3) + b'"',
        b'a="' + b"\\" * (MIB - 3),
        b"a=" + b'"" ' * (MIB // 3 - 3),
        b"/*" + b"*" * (MIB - 2),
        b"#\n" * (MIB // 2),
        b"/**/" * (MIB // 4),
        b"x" * MIB,
        b"a=(" + b"1," * (MIB // 2 - 3),
    ],
    ids=lambda text: text[:8].decode(),
)
def test_hostile_text_of_a_mebibyte_takes_linear_time(text: bytes) -> None:
    start = time.process_time()
    with contextlib.suppress(RegraftError):
        parse(text)
    assert time.process_time() - start < 1.0  # a tenth of it on an idle machine; quadratic time would be minutes


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1, "b": -(1 << 40), "c": 1.0, "d": 1e300, "e": -0.0, "f": True, "g": 'x"\\\n\r\t\f\v\x01é☃', "h": ""},
        {"a": {"b": {"c": [1, (1, 2), [], (), {"d": ("x", "y")}]}}},
    ],
)
def test_what_is_written_reads_back(value: dict[str, object]) -> None:
    assert parse(dump(value).encode()) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        {"": 1},
        {"1a": 1},
        {"a b": 1},
        {"a": None},
        {"a": b"x"},
        {"a": 1 << 63},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": "\0"},
        {"a": "\ud800"},
        {"a": (1, "x")},
        {"a": ({},)},
    ],
)
def test_what_the_language_cannot_hold_is_not_written(value: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        dump(value)  # type: ignore[arg-type]


def test_a_value_that_contains_itself_is_not_written_for_ever() -> None:
    loop: dict[str, object] = {}
    loop["a"] = loop
    with pytest.raises(LimitError):
        dump(loop)  # type: ignore[arg-type]
