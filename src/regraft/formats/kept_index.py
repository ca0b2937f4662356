# SPDX-License-Identifier: Apache-2.0
"""The index of what an update left in a slot, kept beside it as a file.

    magic 8 · digest algorithm u8 · chunker name length u8 · chunker name · chunks u32 · lengths, u32 each
    · digests · SHA-256 of all before 32

Little-endian. Algorithms: 0 SHA-1, 1 SHA-256, 2 SHA-512, 3 SHA-512/128 of zchunk, 4 SHA-512/256,
128 + n BLAKE2b-512 cut to n bytes.
A hint, never an authority: what it promises is hashed again when it is copied.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from itertools import accumulate

from regraft.errors import StateError
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn, Index
from regraft.model.buffers import Buffer

MAGIC = b"RGINDEX\x01"
_BY_NUMBER = {
    **dict(enumerate((Algorithm.SHA1, Algorithm.SHA256, Algorithm.SHA512, Algorithm.SHA512_128, Algorithm.SHA512_256))),
    **{128 + size: Algorithm.blake2b(size) for size in range(4, 65)},
}


def build(index: Index) -> bytes:
    if index.digests.algorithm is None:
        raise ValueError("an index has digests")
    name = index.chunker.encode()
    lengths = array("I", (end - start for start, end in zip(index.bounds, index.bounds[1:], strict=False)))
    if sys.byteorder == "big":
        lengths.byteswap()
    head = MAGIC + struct.pack("<BB", _number(index.digests.algorithm), len(name)) + name
    body = head + struct.pack("<I", len(index)) + lengths.tobytes() + index.digests.data
    return body + hashlib.sha256(body).digest()


def _number(algorithm: Algorithm) -> int:
    return next(number for number, known in _BY_NUMBER.items() if known == algorithm)


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Index:
    """Raises StateError (or FormatError with the offset) for anything but a whole and sound file."""
    view = memoryview(data).cast("B")
    if len(view) < 32 + len(MAGIC) or hashlib.sha256(view[:-32]).digest() != view[-32:]:
        raise StateError("kept index: its bytes differ from its own digest")
    cursor = Cursor(view[:-32], "kept index")
    if cursor.take(len(MAGIC)) != MAGIC:
        raise cursor.fail("not a kept index")
    number, name_length = cursor.unpack("<BB")
    algorithm = _BY_NUMBER.get(number)
    if algorithm is None:
        raise cursor.fail(f"unknown digest algorithm {number}")
    name = cursor.take(name_length)
    if not name.isascii():
        raise cursor.fail("the chunker's name is not ASCII")
    (count,) = cursor.unpack("<I")
    if count > limits.chunks:
        raise cursor.fail(f"{count} chunks, more than {limits.chunks}")
    lengths = array("I")
    lengths.frombytes(cursor.take(4 * count))
    if sys.byteorder == "big":
        lengths.byteswap()
    if max(lengths, default=0) > limits.chunk_size:
        raise cursor.fail(f"a chunk of {max(lengths)} bytes, more than {limits.chunk_size}")
    digests = DigestColumn(algorithm, cursor.take(algorithm.size * count))
    cursor.finish()
    return Index(array("Q", accumulate(lengths, initial=0)), digests, name.decode("ascii"))
