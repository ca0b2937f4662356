# SPDX-License-Identifier: Apache-2.0
"""A small, strict reader and writer of DER (ITU-T X.690, section 10): what CMS and X.509 need of it, no more.

The reader takes one element at a time and never descends by itself, so depth is the caller's choice. Every length is
checked against what encloses it; indefinite and overlong lengths and multi-byte tags are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from regraft.errors import FormatError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OBJECT = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
_OBJECT_SIZE = 64  #: bytes; the longest object identifier in use here has 11


def context(number: int, *, constructed: bool = True) -> int:
    """The tag `[number]` of the context-specific class."""
    return 0x80 | (0x20 if constructed else 0) | number


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, its content, the whole of it (`raw`), and where it began in the input."""

    tag: int
    content: bytes
    raw: bytes
    offset: int

    def inside(self) -> Reader:
        """A reader of this element's content."""
        return Reader(self.content, self.offset + len(self.raw) - len(self.content))


class Reader:
    """Takes elements from `data` in order. `base` is the offset of `data` in the input, for messages."""

    __slots__ = ("_base", "_data", "_position")

    def __init__(self, data: bytes, base: int = 0) -> None:
        self._data, self._base, self._position = data, base, 0

    @property
    def done(self) -> bool:
        return self._position == len(self._data)

    def peek(self) -> int | None:
        """The next element's tag, None at the end."""
        return None if self.done else self._data[self._position]

    def any(self) -> Element:
        """The next element, of whatever tag. Raises FormatError."""
        start, data = self._position, self._data
        if len(data) - start < 2:
            raise self._error("DER ends inside an element", start)
        tag, length, position = data[start], data[start + 1], start + 2
        if tag & 0x1F == 0x1F:
            raise self._error("a DER tag of several bytes", start)
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or len(data) - position < count:
                raise self._error("a DER length that is indefinite, huge or cut off", start)
            length = int.from_bytes(data[position : position + count], "big")
            position += count
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise self._error("a DER length that is longer than need be", start)
        if length > len(data) - position:
            raise self._error(f"a DER element of {length} bytes where {len(data) - position} are left", start)
        self._position = position + length
        return Element(tag, data[position : self._position], data[start : self._position], self._base + start)

    def take(self, tag: int, what: str) -> Element:
        """The next element, which must have `tag`; `what` names it in the message. Raises FormatError."""
        if self.peek() != tag:
            found = "the end" if self.done else f"tag {self._data[self._position]:#04x}"
            raise self._error(f"{found} where {what} belongs", self._position)
        return self.any()

    def optional(self, tag: int) -> Element | None:
        """The next element if it has `tag`. Raises FormatError."""
        return self.any() if self.peek() == tag else None

    def finish(self, what: str) -> None:
        """Raise FormatError unless all has been taken; `what` names the enclosing element."""
        if not self.done:
            raise self._error(f"more than {what} should hold", self._position)

    def object(self, what: str) -> str:
        """The next element as a dotted object identifier. Raises FormatError."""
        return object_identifier(self.take(OBJECT, what))

    def integer(self, what: str) -> int:
        """The next element as an integer. Raises FormatError."""
        return integer(self.take(INTEGER, what))

    def _error(self, cause: str, position: int) -> FormatError:
        return FormatError(cause, offset=self._base + position)


def only(data: bytes, tag: int, what: str, base: int = 0) -> Element:
    """The single element that `data` consists of. Raises FormatError."""
    reader = Reader(data, base)
    element = reader.take(tag, what)
    reader.finish(what)
    return element


def integer(element: Element) -> int:
    """The value of an INTEGER. Raises FormatError when empty or padded."""
    content = element.content
    if not content or (len(content) > 1 and content[0] in (0, 0xFF) and (content[0] ^ content[1]) & 0x80 == 0):
        raise FormatError("a DER integer that is empty or padded", offset=element.offset)
    return int.from_bytes(content, "big", signed=True)


def object_identifier(element: Element) -> str:
    """The value of an OBJECT IDENTIFIER, dotted. Raises FormatError."""
    content = element.content
    if not 1 <= len(content) <= _OBJECT_SIZE or content[-1] & 0x80:
        raise FormatError("a DER object identifier that is empty, huge or cut off", offset=element.offset)
    arcs: list[int] = []
    value, fresh = 0, True
    for byte in content:
        if fresh and byte == 0x80:
            raise FormatError("a DER object identifier that is padded", offset=element.offset)
        value, fresh = value << 7 | byte & 0x7F, not byte & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def bit_string(element: Element) -> bytes:
    """The bytes of a BIT STRING of whole bytes. Raises FormatError."""
    if element.content[:1] != b"\0":
        raise FormatError("a DER bit string that is not whole bytes", offset=element.offset)
    return element.content[1:]


def boolean(element: Element) -> bool:
    """The value of a BOOLEAN. Raises FormatError."""
    if element.content not in (b"\0", b"\xff"):
        raise FormatError("a DER boolean that is neither true nor false", offset=element.offset)
    return element.content == b"\xff"


def time(element: Element) -> datetime:
    """The value of a UTCTime or GeneralizedTime as X.509 and CMS restrict them: seconds, and Z. Raises FormatError."""
    text = element.content.decode("latin-1")
    digits = {UTC_TIME: 12, GENERALIZED_TIME: 14}.get(element.tag, 0)
    if len(text) == digits + 1 and text[-1] == "Z" and text[:-1].isascii() and text[:-1].isdigit():
        if element.tag == UTC_TIME:
            text = ("20" if text < "50" else "19") + text
        try:
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass
    raise FormatError(f"{text[:32]!r} is not a time", offset=element.offset)


# --- writing


def encode(tag: int, *parts: bytes) -> bytes:
    """An element with `tag` whose content is the parts in order."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def encode_set(*elements: bytes) -> bytes:
    """A SET OF, its elements sorted as DER demands."""
    return encode(SET, *sorted(elements))


def encode_integer(value: int) -> bytes:
    return encode(INTEGER, value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True))


def encode_object(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return encode(OBJECT, bytes(content))


def encode_time(moment: datetime) -> bytes:
    """UTCTime up to 2049, GeneralizedTime from 2050 on, as CMS demands (RFC 5652, section 11.3)."""
    moment = moment.astimezone(UTC)
    if 1950 <= moment.year < 2050:
        return encode(UTC_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())
    return encode(GENERALIZED_TIME, moment.strftime("%Y%m%d%H%M%SZ").encode())
