# SPDX-License-Identifier: Apache-2.0
"""The configuration language of libconfig (1.4 to 1.7): SWUpdate writes its sw-description in it.

Follows the chapter "Configuration Files" of the libconfig manual. Groups become `dict`, lists `( ... )` become `list`,
arrays `[ ... ]` become `tuple`, scalars become `bool`, `int`, `float` and `str`. What the manual leaves open or what
reads differently from one release of the library to the next is refused with the position: a duplicate name, an integer
with leading zeros (octal or decimal, depending on the release), NUL characters, text that is not UTF-8, `@include`.

The parser keeps its own stack, looks at every byte a bounded number of times and knows no recursion, so its time is
linear in the input whatever the input is. A comma after the last element of a list is accepted, as since libconfig 1.7.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = "Scalar | tuple[Scalar, ...] | list[Value] | dict[str, Value]"
Container: TypeAlias = "dict[str, Value] | list[Value]"

INT32: Final = range(-(1 << 31), 1 << 31)
INT64: Final = range(-(1 << 63), 1 << 63)

_BLANK = re.compile(rb"[ \t\r\n\f\v]*+(?:(?:#|//)[^\n]*+[ \t\r\n\f\v]*+)*+")
_NAME = re.compile(rb"[A-Za-z*][-A-Za-z0-9_*]*")
_NUMBER = re.compile(rb"[-+]?[0-9A-Za-z.]+(?:(?<=[eE])[-+][0-9]+)?")
_SIMPLE = re.compile(
    rb'([A-Za-z*][-A-Za-z0-9_*]*)[ \t]*[=:][ \t]*(?:"([^"\\\x00]*)"|(true|false)|(0|-?[1-9][0-9]{0,8}))[ \t]*;'
)
_DECIMAL = re.compile(rb"[-+]?[0-9]+L{0,2}")
_HEX = re.compile(rb"0[xX][0-9A-Fa-f]+L{0,2}")
_FLOAT = re.compile(rb"[-+]?(?:[0-9]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_STRING = re.compile(rb'"((?:[^"\\\x00]++|\\[^\x00])*+)"')
_ESCAPES = (
    (b"\\a", b"\a"),
    (b"\\b", b"\b"),
    (b"\\t", b"\t"),
    (b"\\n", b"\n"),
    (b"\\v", b"\v"),
    (b"\\f", b"\f"),
    (b"\\r", b"\r"),
    (b'\\"', b'"'),
)
_HEXES = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_OPENERS = {b"{": b"}", b"(": b")", b"[": b"]"}


def parse(data: Buffer, *, trailing_commas: bool = True, limits: Limits = DEFAULT) -> dict[str, Value]:
    """The settings of a configuration text, in file order.

    `trailing_commas=False` refuses a comma after the last element, as libconfig did before 1.7.

    Raises FormatError with line and column for anything outside the language, UnsupportedError for `@include`,
    LimitError above `limits.description_size` (bytes), `nesting` (depth), `settings` (values), `string_length` (bytes)
    or `name_length` (bytes).
    """
    if len(data) > limits.description_size:
        raise LimitError(
            f"{len(data)} bytes of configuration text; `description_size` allows {limits.description_size}"
        )
    return _Parser(bytes(data), trailing_commas, limits).run()


class _Parser:
    """One pass over the text. `_stack` holds the open groups, lists and arrays with what is known of each."""

    __slots__ = ("_count", "_data", "_limits", "_pos", "_trailing_commas")

    def __init__(self, data: bytes, trailing_commas: bool, limits: Limits) -> None:
        self._trailing_commas = trailing_commas
        self._data, self._limits = data, limits
        self._pos = 0
        self._count = 0

    def run(self) -> dict[str, Value]:
        root: dict[str, Value] = {}
        stack: list[tuple[bytes, Container]] = [(b"", root)]  # the bracket that closes it, the container
        while True:
            closer, container = stack[-1]
            here = self._skip()
            if here == closer:
                if not here:
                    return root
                self._pos += 1
                self._close(stack)
                continue
            if not here:
                raise self._error(f"the text ends before '{closer.decode()}'")
            if isinstance(container, dict):
                self._setting(stack, container)
            else:
                self._value(stack, container)

    # one step of the grammar each

    def _setting(self, stack: list[tuple[bytes, Container]], group: dict[str, Value]) -> None:
        if self._simple(group):
            return
        found = _NAME.match(self._data, self._pos)
        if not found:
            if self._data.startswith(b"@include", self._pos):
                raise UnsupportedError(f"@include {self._where(self._pos)}", cure="put the included text in its place")
            raise self._error(f"a setting's name expected, found {self._glimpse()}")
        name = self._new_name(found[0], group)
        self._pos = found.end()
        if self._skip() not in (b"=", b":"):
            raise self._error(f"'=' or ':' expected after '{name}', found {self._glimpse()}")
        self._pos += 1
        self._skip()
        value = self._open_or_scalar(stack)
        group[name] = value
        if stack[-1][1] is not value:
            self._terminator()

    def _simple(self, group: dict[str, Value]) -> bool:
        """Take the commonest kind of setting, one on a line with a short value, in one stride."""
        found = _SIMPLE.match(self._data, self._pos)
        if not found:
            return False
        word, text, truth, number = found.groups()
        value: Scalar = truth == b"true" if truth else int(number or b"0")
        if text is not None:
            try:
                value = text.decode()
            except UnicodeDecodeError:
                return False  # the long way says where
            if len(text) > self._limits.string_length:
                return False
        name = self._new_name(word, group)
        self._tally()
        group[name] = value
        self._pos = found.end()
        return True

    def _new_name(self, word: bytes, group: dict[str, Value]) -> str:
        if len(word) > self._limits.name_length:
            allowed = f"`name_length` allows {self._limits.name_length}"
            raise LimitError(f"a name of {len(word)} bytes {self._where(self._pos)}; {allowed}")
        name = word.decode()
        if name in group:
            raise self._error(f"'{name}' is set twice")
        return name

    def _tally(self) -> None:
        self._count += 1
        if self._count > self._limits.settings:
            raise LimitError(f"more values than `settings` allows ({self._limits.settings}) {self._where(self._pos)}")

    def _value(self, stack: list[tuple[bytes, Container]], items: list[Value]) -> None:
        closer = stack[-1][0]
        start = self._pos
        if closer == b"]" and self._data[start : start + 1] in _OPENERS:
            raise self._error("an array holds scalars only: use a list ( ... )")
        value = self._open_or_scalar(stack)
        if closer == b"]" and items and type(value) is not type(items[0]):
            raise self._error("the elements of an array must have one type: use a list ( ... )", start)
        items.append(value)
        if stack[-1][1] is not value:
            self._separator(closer)

    def _open_or_scalar(self, stack: list[tuple[bytes, Container]]) -> Value:
        self._tally()
        opener = self._data[self._pos : self._pos + 1]
        closer = _OPENERS.get(opener)
        if closer is None:
            return self._scalar(opener)
        if len(stack) > self._limits.nesting:
            raise LimitError(f"nested deeper than `nesting` allows ({self._limits.nesting}) {self._where(self._pos)}")
        self._pos += 1
        container: Container = {} if closer == b"}" else []
        stack.append((closer, container))
        return container

    def _close(self, stack: list[tuple[bytes, Container]]) -> None:
        closer, closed = stack.pop()
        outer_closer, outer = stack[-1]
        if closer == b"]" and isinstance(closed, list):
            # the array was entered as a list so that it could grow; it is the last thing its owner got
            array = tuple(item for item in closed if not isinstance(item, (dict, list, tuple)))
            if isinstance(outer, dict):
                outer[next(reversed(outer))] = array
            else:
                outer[-1] = array
        if isinstance(outer, dict):
            self._terminator()
        else:
            self._separator(outer_closer)

    def _terminator(self) -> None:
        if self._skip() in (b";", b","):
            self._pos += 1

    def _separator(self, closer: bytes) -> None:
        here = self._skip()
        if here == b",":
            self._pos += 1
            if not self._trailing_commas and self._skip() == closer:
                raise self._error("a comma after the last element")
        elif here != closer:
            raise self._error(f"',' or '{closer.decode()}' expected, found {self._glimpse()}")

    # scalars

    def _scalar(self, first: bytes) -> Scalar:
        if first == b'"':
            return self._strings()
        start = self._pos
        found = _NUMBER.match(self._data, start)
        word = found[0] if found else b""
        if word.lower() in (b"true", b"false"):
            self._pos += len(word)
            return word.lower() == b"true"
        if not word or len(word) > 400:
            raise self._error(f"a value expected, found {self._glimpse()}")
        number = self._number(word)
        self._pos += len(word)
        return number

    def _number(self, word: bytes) -> int | float:
        if _DECIMAL.fullmatch(word):
            digits = word.rstrip(b"L").lstrip(b"+-")
            if len(digits) > 1 and digits.startswith(b"0"):
                raise self._error(
                    f"an integer with leading zeros, {_show(word)}: releases of libconfig read it differently"
                )
            # int() of a long text is quadratic: look at the length first
            return self._ranged(int(word.rstrip(b"L")) if len(digits) < 20 else 1 << 64, word)
        if _HEX.fullmatch(word):
            digits = word.rstrip(b"L")[2:].lstrip(b"0")
            return self._ranged(int(digits or b"0", 16) if len(digits) < 17 else 1 << 64, word)
        if _FLOAT.fullmatch(word) and any(48 <= byte <= 57 for byte in word):
            number = float(word)
            if math.isfinite(number):
                return number
        raise self._error(f"{_show(word)} is no value")

    def _ranged(self, number: int, word: bytes) -> int:
        if number not in INT64:
            raise self._error(f"the integer {_show(word)} does not fit 64 bits")
        return number

    def _strings(self) -> str:
        """A string and all that follow it directly, which the language joins."""
        pieces = bytearray()
        start = self._pos
        while True:
            pieces += self._string()
            if len(pieces) > self._limits.string_length:
                raise LimitError(
                    f"a string of more than `string_length` ({self._limits.string_length}) bytes {self._where(start)}"
                )
            if self._skip() != b'"':
                break
            self._tally()
        try:
            return pieces.decode()
        except UnicodeDecodeError as error:
            raise self._error(f"a string that is not UTF-8: {error.reason}", start) from None

    def _string(self) -> bytes:
        start = self._pos
        found = _STRING.match(self._data, start)
        if not found:
            raise self._error("a string without its closing quote, or with a NUL character", start)
        self._pos = found.end()
        text: bytes = _unescaped(found[1]) if b"\\" in found[1] else found[1]
        if b"\0" in text:
            raise self._error("a NUL character in a string", start)
        return text

    # reading and reporting

    def _skip(self) -> bytes:
        """Go past blanks and comments; return the next byte, empty at the end."""
        data = self._data
        while True:
            blank = _BLANK.match(data, self._pos)
            if blank:  # always: it may be empty
                self._pos = blank.end()
            if not data.startswith(b"/*", self._pos):
                return data[self._pos : self._pos + 1]
            end = data.find(b"*/", self._pos + 2)
            if end < 0:
                raise self._error("a comment without its end")
            self._pos = end + 2

    def _glimpse(self) -> str:
        return _show(self._data[self._pos : self._pos + 24]) if self._pos < len(self._data) else "the end of the text"

    def _where(self, position: int) -> str:
        line = self._data.count(b"\n", 0, position) + 1
        column = position - (self._data.rfind(b"\n", 0, position) + 1) + 1
        return f"in line {line}, column {column}"

    def _error(self, cause: str, position: int | None = None) -> FormatError:
        at = self._pos if position is None else position
        return FormatError(f"{cause} {self._where(at)}", offset=at, cure="mend the configuration text")


def _unescaped(raw: bytes) -> bytes:
    """`raw` without its escapes. A backslash that starts none stays, as in the library."""
    text = raw.replace(b"\\\\", b"\0")  # a stand-in that cannot occur, so that pairs are out of the way
    for written, meant in _ESCAPES:
        text = text.replace(written, meant)
    pieces = _HEXES.split(text)  # plain, digits, plain, digits, ..., plain
    pieces[1::2] = [bytes.fromhex(digits.decode()) for digits in pieces[1::2]]
    pieces[::2] = [plain.replace(b"\0", b"\\") for plain in pieces[::2]]
    return b"".join(pieces)


def _show(word: bytes) -> str:
    shown = word[:24].decode(errors="replace")
    return repr(shown + ("..." if len(word) > 24 else ""))


def dump(value: Mapping[str, Value]) -> str:
    """A text that `parse`, libconfig and SWUpdate read back as `value`.

    Integers beyond 32 bits get the suffix `L`. Raises FormatError for what the language cannot hold: names outside
    `[A-Za-z*][-A-Za-z0-9_*]*`, NUL characters, integers beyond 64 bits, NaN and infinity, mixed arrays, None.
    """
    lines: list[str] = []
    _dump_group(value, lines, 0)
    return "".join(lines)


_TO_ESCAPE = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"})
_CONTROL = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\x7f]")


def _dump_group(group: Mapping[str, Value], lines: list[str], depth: int) -> None:
    for name, value in group.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name.encode(errors="replace")):
            raise FormatError(
                f"{name!r} cannot be the name of a libconfig setting", cure="use letters, digits, '-', '_', '*'"
            )
        lines.append("  " * depth + name + (": " if isinstance(value, (Mapping, list)) else " = "))
        _dump_value(value, lines, depth)
        lines.append(";\n")


def _dump_value(value: Value, lines: list[str], depth: int) -> None:
    if depth > DEFAULT.nesting:
        raise LimitError(f"values nested deeper than `nesting` ({DEFAULT.nesting})")
    if isinstance(value, Mapping):
        lines.append("{\n")
        _dump_group(value, lines, depth + 1)
        lines.append("  " * depth + "}")
    elif isinstance(value, (list, tuple)):
        _dump_items(value, lines, depth)
    else:
        lines.append(_scalar_text(value))


def _dump_items(items: list[Value] | tuple[Value, ...], lines: list[str], depth: int) -> None:
    array = isinstance(items, tuple)
    if array and (len({type(item) for item in items}) > 1 or any(isinstance(i, (Mapping, list, tuple)) for i in items)):
        raise FormatError("an array holds scalars of one type", cure="use a list instead of a tuple")
    lines.append("[ " if array else "( ")
    for number, item in enumerate(items):
        lines.append(", " if number else "")
        _dump_value(item, lines, depth + 1)
    lines.append(" ]" if array else " )")


def _scalar_text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in INT64:
        return str(value) if value in INT32 else f"{value}L"
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        mantissa, mark, exponent = text.partition("e")
        return text if "." in mantissa else f"{mantissa}.0{mark}{exponent}"
    if isinstance(value, str) and "\0" not in value:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FormatError(
                "a string with half a surrogate pair cannot be written as UTF-8", cure="mend the text"
            ) from None
        return '"' + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value.translate(_TO_ESCAPE)) + '"'
    raise FormatError(f"libconfig cannot hold {type(value).__name__} {str(value)[:40]!r}", cure="use another value")
