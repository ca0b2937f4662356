# SPDX-License-Identifier: Apache-2.0
"""Range requests as a server sees them (RFC 9110 section 14): which bytes to send, and in what form. Pure.

The form of a multipart answer is the one that SWUpdate's delta handler understands in all its versions: a boundary of
digits, unquoted, after `; `, header names and line ends as in the RFC, parts in the order that was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from regraft.engine.ranges import Range

_SPEC = re.compile(r"[ \t]*([0-9]{0,19})[ \t]*-[ \t]*([0-9]{0,19})[ \t]*")


@dataclass(frozen=True, slots=True)
class Selection:
    """What to answer: 200 with all, 206 with `ranges` in the order asked for, or 416."""

    status: int
    ranges: tuple[Range, ...] = ()


WHOLE = Selection(200)
UNSATISFIABLE = Selection(416)


def select(header: str | None, size: int, *, most: int) -> Selection:
    """What a Range header asks of a file of `size` bytes.

    Ignored, as RFC 9110 allows, are other units, more than `most` ranges, and ranges that overlap so much that
    they add up to more than the file. A malformed header is answered with 416 and any range of an
    empty file with 200, as nginx does.
    """
    if header is None or header[:6].lower() != "bytes=" or len(header) == len("bytes="):
        return WHOLE
    specs = header[6:].split(",", most)
    if len(specs) > most:
        return WHOLE
    found: list[Range] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or not (match[1] or match[2]):
            return UNSATISFIABLE
        if match[1]:
            start = int(match[1])
            end = min(int(match[2]) + 1, size) if match[2] else size
            if match[2] and int(match[2]) < start:
                return UNSATISFIABLE
        else:
            start, end = max(0, size - int(match[2])), size
        if start < end:
            found.append(Range(start, end - start))
        elif start == 0:
            return WHOLE  # of an empty file
    if not found:
        return UNSATISFIABLE
    if sum(span.length for span in found) > size:
        return WHOLE
    return Selection(206, tuple(found))


def part_heads(ranges: tuple[Range, ...], size: int, kind: str, boundary: str) -> tuple[list[bytes], bytes]:
    """What precedes each part of a multipart answer, and what ends it."""
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {kind}\r\n"
        f"Content-Range: bytes {span.offset}-{span.end - 1}/{size}\r\n\r\n".encode()
        for span in ranges
    ]
    return heads, f"\r\n--{boundary}--\r\n".encode()


def etag_matches(header: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of ETags such as If-None-Match names `etag` (RFC 9110 section 8.8.3.2)."""
    for entry in header.split(","):
        entry = entry.strip()
        if weak:
            entry = entry.removeprefix("W/")
        if entry in (etag, "*"):
            return True
    return False
