# SPDX-License-Identifier: Apache-2.0
"""JSON (RFC 8259) from a peer, without the freedoms that let two readers see two documents.

Refused beyond what the grammar refuses: a byte order mark, a name that occurs twice in one object, NaN and infinities,
integers beyond 64 bits, half surrogate pairs, NUL characters, and text after the document.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from regraft.errors import FormatError, LimitError
from regraft.formats.libconfig import INT64, Value
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_CURE = "mend the JSON text"


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Value:
    """The document's value. `null` reads as None only where an object or list holds it.

    Raises FormatError for anything that is not strict JSON, LimitError above `limits.description_size` (bytes),
    `nesting` (depth), `settings` (values) or `string_length` (characters).
    """
    if len(data) > limits.description_size:
        raise LimitError(f"{len(data)} bytes of JSON; `description_size` allows {limits.description_size}")
    raw = bytes(data)
    if raw.startswith(b"\xef\xbb\xbf"):
        raise FormatError("the JSON text starts with a byte order mark", offset=0, cure=_CURE)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"JSON that is not UTF-8: {error.reason}", offset=error.start, cure=_CURE) from None
    _check_shape(raw, limits)
    try:
        value: Value = json.loads(
            text, object_pairs_hook=_group, parse_int=_integer, parse_float=_real, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        where = f"in line {error.lineno}, column {error.colno}"
        raise FormatError(f"no JSON: {error.msg} {where}", offset=error.pos, cure=_CURE) from None
    _check_strings(value, limits)
    return value


def _check_shape(raw: bytes, limits: Limits) -> None:
    """Depth and number of values, before a parser that recurses sees the text."""
    bare = _STRINGS.sub(b"", raw)
    if bare.count(b",") + bare.count(b"[") + bare.count(b"{") > limits.settings:
        raise LimitError(f"more values than `settings` allows ({limits.settings})")
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", bare):
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.nesting:
            raise LimitError(f"nested deeper than `nesting` allows ({limits.nesting})")


def _group(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise FormatError(f"{twice[:40]!r} is set twice in one object", cure=_CURE)
    return group


def _integer(digits: str) -> int:
    if len(digits) > 20 or (number := int(digits)) not in INT64:
        raise FormatError(f"the integer {digits[:24]} does not fit 64 bits", cure=_CURE)
    return number


def _real(digits: str) -> float:
    number = float(digits) if len(digits) < 400 else math.inf
    if not math.isfinite(number):
        raise FormatError(f"the number {digits[:24]} is out of range", cure=_CURE)
    return number


def _constant(word: str) -> NoReturn:
    raise FormatError(f"{word} is no JSON", cure=_CURE)


def _check_strings(value: Value, limits: Limits) -> None:
    waiting: list[Value] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str):
            if len(item) > limits.string_length:
                raise LimitError(f"a string of {len(item)} characters; `string_length` allows {limits.string_length}")
            if _NO_TEXT.search(item):
                raise FormatError("a string with a NUL character or half a surrogate pair", cure=_CURE)
