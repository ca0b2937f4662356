# SPDX-License-Identifier: Apache-2.0
"""The description of one image in a chunk store: the ordered chunks that make it up, without their bytes.

    magic 8 · chunks u32 · image size u64
    · text: chunker · text: label of the digest algorithm of the chunks
    · text: label of the algorithm of the image's digest, empty if it has none · its value
    · identity of the recipe 32 · text: source
    · entries of metadata u16 · an entry each: text: key · value length u32 · value
    · chunks x length u32 · a bit per chunk, lowest first: whether it is zeros · chunks x digest
    · SHA-256 of all before 32

All little-endian. A text is its length in bytes (u16) and so many bytes of UTF-8. Where chunks lie is not said here:
that is found in the indexes of the packs, by the digest. The label of the chunks' algorithm is empty, and there are no
digests, as long as nothing is known of them: only in the intent of a clone (`.partial`).
"""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from dataclasses import dataclass, field, replace
from itertools import accumulate

from regraft.errors import FormatError, LimitError, StateError, UsageError
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, Digest, DigestColumn
from regraft.model.buffers import Buffer
from regraft.model.recipe import SHORTEST_IDENTITY

MAGIC = b"RGIMAGE\x01"
_LONGEST = 0xFFFF  # bytes of a text


@dataclass(frozen=True, slots=True)
class Description:
    """An image as a list of chunks. Chunk i is bounds[i]..bounds[i + 1]; `zero` has a flag per chunk."""

    bounds: array[int]
    digests: DigestColumn
    zero: bytearray
    chunker: str = ""
    digest: Digest | None = None  #: of the whole image
    source: str = ""  #: where it was cloned from, for people
    identity: bytes = bytes(32)  #: of the recipe it was cloned by
    metadata: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.bounds[-1]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def length(self, row: int) -> int:
        return self.bounds[row + 1] - self.bounds[row]


def build(description: Description) -> bytes:
    """Its bytes. Raises LimitError if one of its texts has more than 65535 bytes."""
    count = len(description)
    lengths = array("I", map(description.length, range(count)))
    if sys.byteorder == "big":
        lengths.byteswap()
    flags = bytearray(-(-count // 8))
    for row, zero in enumerate(description.zero):
        flags[row >> 3] |= bool(zero) << (row & 7)
    algorithm, digest = description.digests.algorithm, description.digest
    out = bytearray(MAGIC + struct.pack("<IQ", count, description.size))
    out += _text(description.chunker) + _text(algorithm.label if algorithm else "")
    out += _text(digest.algorithm.label if digest else "") + (digest.value if digest else b"")
    out += struct.pack("<32s", description.identity) + _text(description.source)
    out += struct.pack("<H", len(description.metadata))
    for key, value in sorted(description.metadata.items()):
        out += _text(key) + struct.pack("<I", len(value)) + value
    out += lengths.tobytes() + flags + description.digests.data
    return bytes(out) + hashlib.sha256(out).digest()


def size_of(description: Description, algorithm: Algorithm) -> int:
    """Bytes that the description takes once it has digests of this algorithm."""
    bare = replace(description, digests=DigestColumn(None))
    return len(build(bare)) + len(algorithm.label) + algorithm.size * len(description)


def _text(text: str) -> bytes:
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"image description: {text[:60]!r} is not UTF-8", cure="give the file another name") from None
    if len(content) > _LONGEST:
        raise LimitError(
            f"image description: a text of {len(content)} bytes, it has room for {_LONGEST}: {text[:60]!r}...",
            cure="give a shorter one",
        )
    return struct.pack("<H", len(content)) + content


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> Description:
    """Raises StateError, FormatError or LimitError for anything but a whole and sound description."""
    view = memoryview(data).cast("B")
    if len(view) < 32 + len(MAGIC) or hashlib.sha256(view[:-32]).digest() != view[-32:]:
        raise StateError("image description: its bytes differ from its own digest")
    cursor = Cursor(view[:-32], "image description")
    if cursor.take(len(MAGIC)) != MAGIC:
        raise FormatError("not an image description", offset=0)
    count, size = cursor.unpack("<IQ")
    if count > limits.chunks or size > limits.image_size:
        raise LimitError(
            f"image description: {count} chunks and {size} bytes, more than {limits.chunks} (chunks) "
            f"or {limits.image_size} (image_size)"
        )
    chunker, algorithm = _read_text(cursor), _algorithm(cursor)
    if algorithm is not None and algorithm.size < SHORTEST_IDENTITY:
        raise cursor.fail(f"digests of {algorithm.size} bytes identify nothing")
    image = _algorithm(cursor)
    digest = Digest(image, cursor.take(image.size)) if image else None
    identity, source = cursor.take(32), _read_text(cursor)
    metadata = _metadata(cursor, limits)
    lengths = array("I")
    lengths.frombytes(cursor.take(4 * count))
    if sys.byteorder == "big":
        lengths.byteswap()
    if max(lengths, default=0) > limits.chunk_size:
        raise LimitError(f"image description: a chunk of {max(lengths)} bytes, more than {limits.chunk_size}")
    if 0 in lengths or sum(lengths) != size:
        raise cursor.fail(f"an image of {size} bytes, its chunks have {sum(lengths)}, none may be empty")
    flags = cursor.take(-(-count // 8))
    zero = bytearray((flags[row >> 3] >> (row & 7)) & 1 for row in range(count))
    digests = DigestColumn(algorithm, cursor.take(algorithm.size * count) if algorithm else b"")
    cursor.finish()
    bounds = array("Q", accumulate(lengths, initial=0))
    return Description(bounds, digests, zero, chunker, digest, source, identity, metadata)


def _read_text(cursor: Cursor) -> str:
    (length,) = cursor.unpack("<H")
    try:
        return cursor.take(length).decode()
    except UnicodeDecodeError:
        raise cursor.fail("a text that is not UTF-8") from None


def _algorithm(cursor: Cursor) -> Algorithm | None:
    label = _read_text(cursor)
    try:
        return Algorithm.named(label) if label else None
    except KeyError:
        raise cursor.fail(f"unknown digest algorithm {label!r}") from None


def _metadata(cursor: Cursor, limits: Limits) -> dict[str, bytes]:
    (count,) = cursor.unpack("<H")
    if count > limits.metadata:
        raise LimitError(f"image description: {count} entries of metadata, more than {limits.metadata} (metadata)")
    found: dict[str, bytes] = {}
    for _ in range(count):
        key = _read_text(cursor)
        (length,) = cursor.unpack("<I")
        if key in found:
            raise cursor.fail(f"the key {key!r} is there twice")
        found[key] = cursor.take(length)
    return found
