# SPDX-License-Identifier: Apache-2.0
"""Patches of bsdiff 4 (Colin Percival) and of Android's bsdiff, BSDF2: their three streams.

    BSDIFF40   magic 8 · stored size of the control stream 8 · of the difference stream 8 · size of the target 8
    BSDF2      magic 5 · compression of control, difference and extra stream u8 each · the same three numbers

Numbers are 64 bits, little-endian, with the sign in the highest bit. The streams follow each other, the extra stream up
to the end. Control has triples: bytes to add to the base, bytes to take from the extra stream, bytes to skip in the
base.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats.codecs import Decoder
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

MAGIC, MAGIC_2 = b"BSDIFF40", b"BSDF2"
#: Compressions of BSDF2, by number.
COMPRESSIONS = ("none", "bzip2", "brotli")
_HEADER = 32
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Patch:
    """A decoded patch. control: triples of 24 bytes; see `steps`."""

    control: bytes
    difference: Buffer
    extra: Buffer
    size: int  #: of the target, in bytes

    def steps(self) -> Iterator[tuple[int, int, int]]:
        """(bytes to add to the base, bytes to take from the extra stream, bytes to skip in the base)."""
        for triple in struct.iter_unpack("<3Q", self.control):
            yield _number(triple[0]), _number(triple[1]), _number(triple[2])


def _number(value: int) -> int:
    return -(value ^ _SIGN) if value & _SIGN else value


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Patch:
    """A patch, decoded and checked: its steps use up both streams, and make a target of its size.

    Raises FormatError, LimitError, UnsupportedError; MissingError without the package that brotli needs.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEADER:
        raise FormatError(f"bsdiff patch: {len(view)} bytes", offset=len(view))
    if view[:8] == MAGIC:
        names = ("bzip2",) * 3
    elif view[:5] == MAGIC_2:
        if max(view[5:8]) >= len(COMPRESSIONS):
            raise UnsupportedError(f"bsdiff patch: compressions {list(view[5:8])} are not known", offset=5)
        names = (COMPRESSIONS[view[5]], COMPRESSIONS[view[6]], COMPRESSIONS[view[7]])
    else:
        raise FormatError(f"not a bsdiff patch: it starts with {bytes(view[:8]).hex(' ')}", offset=0)
    control_size, difference_size, size = map(_number, struct.unpack_from("<3Q", view, 8))
    if min(control_size, difference_size, size) < 0 or _HEADER + control_size + difference_size > len(view):
        raise FormatError(f"bsdiff patch: streams of {control_size} and {difference_size} bytes", offset=8)
    if size > limits.patched_size:
        raise LimitError(f"bsdiff patch: a target of {size} bytes, more than {limits.patched_size} (patched_size)")
    middle = _HEADER + control_size
    # A step that makes nothing has no use; twice as many as bytes are more than any tool writes.
    control = _decoder(names[0], limits).decode_all(view[_HEADER:middle], min(24 * (2 * size + 2), limits.patched_size))
    if len(control) % 24:
        raise FormatError(f"bsdiff patch: {len(control)} bytes of control", offset=_HEADER)
    added = taken = 0
    for add, take, _ in Patch(control, b"", b"", size).steps():
        if add < 0 or take < 0 or added + taken + add + take > size:
            raise FormatError(f"bsdiff patch: a step makes {add} and {take} bytes of {size}", offset=_HEADER)
        added, taken = added + add, taken + take
    if added + taken != size:
        raise FormatError(f"bsdiff patch: its steps make {added + taken} bytes of {size}", offset=_HEADER)
    end = middle + difference_size
    difference = _decoder(names[1], limits).decode(view[middle:end], added)
    extra = _decoder(names[2], limits).decode(view[end:], taken)
    return Patch(control, difference, extra, size)


def _decoder(name: str, limits: Limits) -> Decoder:
    return Decoder(name, limits=limits)
