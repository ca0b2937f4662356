# SPDX-License-Identifier: Apache-2.0
"""POSIX extended regular expressions: meaning, refusals, and time."""

from __future__ import annotations

import time

import pytest

from regraft.device.ere import compile_pattern
from regraft.errors import FormatError, LimitError, UnsupportedError


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("", ["", "x"], []),
        ("a", ["a", "xax"], ["", "b"]),
        ("^a", ["ab"], ["ba"]),
        ("a$", ["ba"], ["ab"]),
        ("^$", [""], ["a"]),
        ("^(a|b)+$", ["a", "abba"], ["", "abc"]),
        ("^a?b*c+$", ["c", "abbc", "bcc"], ["ab", "aac"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{1,3}$", ["a", "aaa"], ["", "aaaa"]),
        ("^(ab){0,1}$", ["", "ab"], ["abab"]),
        (r"^1\.[0-9]+$", ["1.0", "1.42"], ["1x0", "1."]),
        ("^[^a-c]$", ["d", "-"], ["a", "b", "c", ""]),
        ("^[]x]$", ["]", "x"], ["["]),
        ("^[a-]$", ["a", "-"], ["b"]),
        (r"^[\.]$", ["\\", "."], ["x"]),
        ("^[[:alpha:][:digit:]_]+$", ["aZ9_"], ["-", ""]),
        ("^.$", ["x", "é"], ["", "xx"]),
        (r"^\w\s\W\S$", ["a b-"[:1] + " -x"], ["aaaa"]),
        ("^rev-(1|2(a|b)?)$", ["rev-1", "rev-2", "rev-2b"], ["rev-2c", "rev-1a"]),
        ("a|", ["", "a"], []),
        ("^(a*)*$", ["", "aaa"], ["b"]),
        ("x{0}y", ["y"], ["x"]),
    ],
)
def test_a_pattern_matches_what_posix_says(pattern: str, matching: list[str], other: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [text for text in matching if not compiled.matches(text)] == []
    assert [text for text in other if compiled.matches(text)] == []


@pytest.mark.parametrize(
    "pattern",
    ["(", "(a", "a)", "[", "[a", "[]", "[z-a]", "[[:foo:]]", "[[:alpha", "*a", "+", "?", "a|*", "(*)", "^*", "\\",
     "a{", "a{1", "a{x}", "a{2,1}", "a{256}", "a{1,2", "{1}"],
)  # fmt: skip
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(FormatError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", [r"(a)\1", r"\bx", r"\<x", "[[.a.]]", "[[=a=]]"])
def test_what_goes_beyond_posix_or_the_c_locale_is_refused_as_a_feature(pattern: str) -> None:
    with pytest.raises(UnsupportedError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(" * 1000, "a" + "*" * 1000, "((a{255}){255}){255}", "a{255}" * 40])
def test_size_and_depth_are_bounded(pattern: str) -> None:
    with pytest.raises(LimitError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "(a*)*(a*)*(a*)*b", "(x+x+)+y"])
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    start = time.process_time()
    assert not compile_pattern(pattern).matches(("a" * 254 + "!") if "x" not in pattern else "x" * 255)
    assert time.process_time() - start < 1.0
