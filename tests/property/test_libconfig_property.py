# SPDX-License-Identifier: Apache-2.0
"""What is written reads back, whatever it is; and hostile text never brings down the parser."""

from __future__ import annotations

import importlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tools import missing

from regraft.errors import RegraftError
from regraft.formats.libconfig import dump, parse

names = st.from_regex(r"[A-Za-z*][-A-Za-z0-9_*]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-(1 << 63), (1 << 63) - 1)
reals = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.booleans() | integers | reals | texts
arrays = st.one_of([st.lists(kind, max_size=4).map(tuple) for kind in (st.booleans(), integers, reals, texts)])
values: st.SearchStrategy[Any] = st.recursive(
    scalars | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)
groups = st.dictionaries(names, values, max_size=6)


@given(groups)
def test_what_is_written_reads_back_with_the_same_types(group: dict[str, Any]) -> None:
    read = parse(dump(group).encode())
    assert repr(read) == repr(group)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_result_or_a_typed_error(data: bytes) -> None:
    try:
        parse(data)
    except RegraftError as error:
        assert error.cure  # noqa: PT017


@given(st.text('ab=:;,{}()[]"\\ \n#/*.0123456789eExL-+tru', max_size=60))
@settings(max_examples=300)
def test_what_is_taken_survives_being_written(text: str) -> None:
    try:
        value = parse(text.encode())
    except RegraftError:
        return
    assert repr(parse(dump(value).encode())) == repr(value)


def plain(value: Any) -> Any:
    """Without what libconf marks apart: its groups and its integers of 64 bits."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(groups)
@settings(max_examples=200, deadline=None)
def test_libconf_reads_the_same(group: dict[str, Any]) -> None:
    try:
        libconf = importlib.import_module("libconf")
    except ModuleNotFoundError:
        missing("libconf")
    assert plain(libconf.loads(dump(group))) == plain(group)
