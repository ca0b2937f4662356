# SPDX-License-Identifier: Apache-2.0
"""Incremental parser of multipart/byteranges (RFC 9110 section 14.6, RFC 2046 section 5.1). Pure.

Every part is placed by its own Content-Range, so parts may come in any order, coalesced or split. Data is handed out
as slices of what was fed, without a copy; only headers and delimiters are collected, up to `limits.part_header` bytes.
Deviations of real servers that leave no doubt are tolerated: header names in any case, lines that end in LF only, no
empty line between headers and data, no line end before a delimiter, a boundary in another case than announced or not
announced at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from regraft.errors import ChangedError, FormatError, LimitError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer
from regraft.transports.headers import LONGEST_BOUNDARY, ContentRange, parse_content_range

_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_NAME = b"!#$%&'*+.^_`|~-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST_NAME = 64

_PREAMBLE, _DELIMITER, _HEADERS, _DATA, _END = range(5)


class MultipartParser:
    """Feed it the body in pieces of any size; it yields (offset in the file, data).

    `boundary` is what Content-Type announced, b"" if nothing. `total` is the file's size in bytes if known: a part
    that says otherwise raises ChangedError.
    """

    def __init__(self, boundary: bytes, *, total: int | None = None, limits: Limits = DEFAULT) -> None:
        self._boundary = boundary.lower()
        self._maximum = limits.part_header
        self._state = _PREAMBLE
        self._held = bytearray()  # an incomplete header, delimiter or preamble
        self._range: ContentRange | None = None
        self._header_bytes = 0
        self._left = 0  # bytes of the present part still to come
        self._next = 0  # where they lie in the file
        self._position = 0  # bytes of the body behind us
        self.total = total
        self.parts = 0  #: parts whose data has begun
        self.first: ContentRange | None = None  #: the first part's range

    @property
    def finished(self) -> bool:
        """Whether the closing delimiter was seen."""
        return self._state == _END

    @property
    def between_parts(self) -> bool:
        """Whether all data that was announced has come: an end of the body here loses nothing."""
        return self._state != _DATA

    def feed(self, data: Buffer) -> Iterator[tuple[int, memoryview]]:
        """Take the next piece of the body; iterate to the end before the next call.

        Raises FormatError, LimitError for headers that are too long, ChangedError for another total size.
        """
        view = memoryview(data)
        while view:
            if self._state == _DATA:
                taken = min(self._left, len(view))
                yield self._next, view[:taken]
                self._next += taken
                self._left -= taken
                self._position += taken
                view = view[taken:]
                if not self._left:
                    self._state = _DELIMITER
            elif self._state == _END:
                return
            else:
                view = self._collect(view)

    def finish(self) -> None:
        """Say that the body has ended. Raises FormatError when it ends inside a part or its headers."""
        if self._state == _DATA:
            raise self._error(f"multipart body ends {self._left} bytes before the end of a part")
        if self._state == _HEADERS or (self._state == _PREAMBLE and not self.parts):
            raise self._error("multipart body ends before the headers of a part are complete")

    def _error(self, cause: str) -> FormatError:
        return FormatError(cause, offset=self._position)

    def _collect(self, view: memoryview) -> memoryview:
        """Add from `view` to what is held until the present element is complete; return the rest of `view`."""
        room = self._maximum + 1 - len(self._held)
        piece = view[: max(1, min(room, 512))]
        before = len(self._held)
        self._held += piece
        step = (self._preamble, self._delimiter, self._headers)[self._state]
        used = step()
        if used is None:
            if len(self._held) > self._maximum:
                raise LimitError(
                    f"multipart headers of more than {self._maximum} bytes (at byte {self._position} of the body)",
                    cure="raise the limit part_header if the server is to be trusted with this much",
                )
            return view[len(piece) :]
        self._position += used
        # all that was held before was needed, else the step would have succeeded then; except for lines of a
        # preamble or headers, which a step consumes one at a time
        if used >= before:
            self._held.clear()
            return view[used - before :]
        del self._held[:used]
        rest = bytes(self._held[: before - used])
        self._held.clear()
        return memoryview(rest + bytes(view)) if rest else view

    def _line(self) -> tuple[bytes, int] | None:
        """The first line held, without its end, and its length with it."""
        end = self._held.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._held[:end])
        return (line[:-1] if line.endswith(b"\r") else line), end + 1

    def _preamble(self) -> int | None:
        """Text before the first delimiter, which is skipped, and that delimiter."""
        found = self._line()
        if found is None:
            return None
        line, used = found
        self._header_bytes += used
        if self._header_bytes > self._maximum:
            raise self._error(f"no boundary in the first {self._maximum} bytes of the multipart body")
        self._take_delimiter(line)
        return used

    def _take_delimiter(self, line: bytes) -> bool:
        """Whether `line` is a delimiter; if so go on to what it introduces."""
        text = line.strip(b" \t").lower()
        if not text.startswith(b"--"):
            return False
        if not self._boundary and 2 < len(text) <= LONGEST_BOUNDARY + 2:
            self._boundary = text[2:]
        if not self._boundary or text not in (b"--" + self._boundary, b"--" + self._boundary + b"--"):
            return False
        if text.endswith(b"--") and text != b"--" + self._boundary:
            self._state = _END
        else:
            self._state = _HEADERS
            self._range = None
            self._header_bytes = 0
        return True

    def _delimiter(self) -> int | None:
        """What follows a part's data: a line end (perhaps missing) and a delimiter (its end perhaps missing)."""
        held = self._held
        start = 2 if held.startswith(b"\r\n") else 1 if held.startswith(b"\n") else 0
        expected = b"--" + self._boundary
        seen = bytes(held[start : start + len(expected)]).lower()
        if held == b"\r" or (len(seen) < len(expected) and expected.startswith(seen)):
            return None
        if seen != expected:
            raise self._error("no boundary where the part's Content-Range says that it ends")
        after = bytes(held[start + len(expected) : start + len(expected) + 2])
        if after == b"--":  # the closing one counts without a line end: nothing need follow
            self._state = _END
            return start + len(expected) + 2
        end = held.find(b"\n", start)
        if end < 0:
            return None
        if not self._take_delimiter(bytes(held[start:end]).rstrip(b"\r")):
            raise self._error("no boundary where the part's Content-Range says that it ends")
        return end + 1

    def _headers(self) -> int | None:
        """One header line of a part, or the empty line that ends them, or the data that begins without one."""
        held = self._held
        if self._range is not None and not self._may_be_header():
            self._begin_data()
            return 0
        found = self._line()
        if found is None:
            return None
        line, used = found
        self._header_bytes += used
        if self._header_bytes > self._maximum:
            raise LimitError(f"headers of a part of more than {self._maximum} bytes (at byte {self._position})")
        if not line:
            if self._range is None:
                raise self._error("a part of the multipart body has no Content-Range")
            self._begin_data()
            return used
        header = _HEADER_LINE.fullmatch(line)
        if header is None:
            if self._range is not None:
                self._begin_data()
                return 0
            raise self._error(f"malformed header {bytes(held[:40])!r} of a part")
        if header[1].lower() == b"content-range":
            parsed = parse_content_range(header[2].decode("latin-1"))
            if self._range is not None and parsed != self._range:
                raise self._error("a part has two different Content-Range headers")
            self._range = parsed
        return used

    def _may_be_header(self) -> bool:
        """Whether what is held can still become a header line or the empty line.

        After Content-Range some servers leave the empty line out. Stored chunks are compressed data, which does not
        look like `Name: value`; if it ever does, the delimiter is not where it should be, and that is an error.
        """
        held = self._held
        if not held or held.startswith((b"\n", b"\r\n")) or held == b"\r":
            return True
        name, colon, _ = held[: _LONGEST_NAME + 1].partition(b":")
        if not name or name.strip(_NAME):  # only characters of names are stripped off: is anything left?
            return False
        if colon:
            line = bytes(held.partition(b"\n")[0])
            return _HEADER_LINE.fullmatch(line.removesuffix(b"\r")) is not None
        return len(held) <= _LONGEST_NAME

    def _begin_data(self) -> None:
        assert self._range is not None  # noqa: S101 - the callers have looked
        found = self._range
        if found.total is not None:
            if self.total is None:
                self.total = found.total
            elif self.total != found.total:
                raise ChangedError(f"a part is of a file of {found.total} bytes, expected {self.total}")
        self.parts += 1
        if self.first is None:
            self.first = found
        self._next, self._left = found.start, found.end - found.start
        self._state = _DATA
