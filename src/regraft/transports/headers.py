# SPDX-License-Identifier: Apache-2.0
"""The few header values of HTTP that ranged reads depend on (RFC 9110 sections 8.8, 10.2.3, 14). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from regraft.errors import FormatError

#: Longest value that is looked at, in characters.
LONGEST = 1024
#: Longest boundary that is taken, in characters; RFC 2046 allows 70.
LONGEST_BOUNDARY = 200

_CONTENT_RANGE = re.compile(r"bytes[ \t=:]*([0-9]{1,19})[ \t]*-[ \t]*([0-9]{1,19})[ \t]*/[ \t]*([0-9]{1,19}|\*)", re.I)
_UNSATISFIED = re.compile(r"bytes[ \t=:]*\*[ \t]*/[ \t]*([0-9]{1,19})", re.I)
_LENGTH = re.compile(r"[0-9]{1,19}")
_SECONDS = re.compile(r"-?[0-9]{1,19}(\.[0-9]{0,9})?")
_ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class ContentRange(NamedTuple):
    """Bytes `start` up to but not including `end` of a file of `total` bytes, None if not said."""

    start: int
    end: int
    total: int | None


def parse_content_range(text: str) -> ContentRange:
    """The value of Content-Range for a satisfied range. Raises FormatError."""
    found = _CONTENT_RANGE.fullmatch(text.strip()) if len(text) <= LONGEST else None
    if found is None:
        raise FormatError(f"Content-Range {text[:80]!r} is not of the form 'bytes first-last/size'")
    start, end = int(found[1]), int(found[2]) + 1
    total = None if found[3] == "*" else int(found[3])
    if end <= start or (total is not None and end > total):
        raise FormatError(f"Content-Range {text[:80]!r} contradicts itself")
    return ContentRange(start, end, total)


def parse_unsatisfied(text: str | None) -> int | None:
    """The file's size in the Content-Range of a 416 answer; None if it does not say."""
    found = _UNSATISFIED.fullmatch(text.strip()) if text is not None and len(text) <= LONGEST else None
    return None if found is None else int(found[1])


def parse_length(text: str | None) -> int | None:
    """The value of Content-Length in bytes; None if absent or not a plain number."""
    found = _LENGTH.fullmatch(text.strip()) if text is not None and len(text) <= LONGEST else None
    return None if found is None else int(found[0])


def parse_retry_after(text: str | None, now: float) -> float | None:
    """The wait in seconds that Retry-After asks for, never negative; None if absent or nonsense.

    `text` is a number of seconds or an HTTP date; `now` is the time in seconds since 1970. The caller caps it.
    """
    if text is None or len(text) > LONGEST:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return max(0.0, float(text))
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(0.0, when - now)


def multipart_boundary(content_type: str | None) -> bytes | None:
    """The boundary of a multipart/byteranges answer, b"" if it is one but names none, None for any other type."""
    if content_type is None or len(content_type) > LONGEST:
        return None
    kind, *parameters = content_type.split(";")
    if kind.strip().lower() != "multipart/byteranges":
        return None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "boundary":
            text = value.strip().strip("\"'").strip()
            return text.encode("latin-1", "replace")[:LONGEST_BOUNDARY]
    return b""


def encoding_of(headers: Mapping[str, str]) -> str:
    """The Content-Encoding in lower case, "" for none. Header names are looked up in any case by the mapping."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding[:LONGEST]


@dataclass(frozen=True, slots=True)
class Validator:
    """What tells one state of a file from another: its ETag (opaque part), whether that is strong, its date."""

    etag: str = ""
    strong: bool = False
    modified: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Validator:
        """From an answer's headers; what is malformed counts as absent."""
        found = _ETAG.fullmatch(headers.get("etag", "")[:LONGEST].strip())
        modified = headers.get("last-modified", "").strip()
        if not modified.isascii() or not modified.isprintable() or len(modified) > 64:
            modified = ""
        if found is None or not found[2].isascii():
            return cls("", False, modified)
        return cls(found[2], found[1] is None, modified)

    @property
    def if_range(self) -> str:
        """The value for If-Range: a strong ETag, else the date, else ""."""
        return self.etag if self.strong else self.modified

    def contradicts(self, other: Validator) -> str:
        """Why `other` cannot be of the same state, "" if it can. Only what both have is compared."""
        if self.etag and other.etag and self.etag != other.etag:
            return f"ETag was {self.etag}, now {other.etag}"
        if self.modified and other.modified and self.modified != other.modified:
            return f"Last-Modified was {self.modified}, now {other.modified}"
        return ""
