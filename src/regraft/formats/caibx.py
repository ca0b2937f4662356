# SPDX-License-Identifier: Apache-2.0
"""casync's blob indexes (.caibx), both ways, and their Recipe. Follows caformat.h and caindex.c of casync 2.

    INDEX   size u64 = 48 · type u64 · feature flags u64 · least, average and greatest chunk size u64
    TABLE   size u64 = 2^64 - 1 · type u64 · for each chunk: its end in the image u64, its digest 32
    tail    0 u64 · 0 u64 · 48 u64 · size of TABLE with its tail u64 · marker u64

Little-endian. There is no checksum, nor any stored size: chunks are files of a store (.castr), named by their digests:
`<first 4 digits>/<64 digits>.cacnk` compressed, or the same without suffix as they are.
"""

from __future__ import annotations

import re
import struct
from array import array
from dataclasses import dataclass, field
from itertools import pairwise

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, MIB, Limits
from regraft.model import Addressing, Algorithm, Blob, Codec, DigestColumn, Kind, Op, OpTable, Recipe, Units
from regraft.model.buffers import Buffer

INDEX, TABLE, TAIL = 0x96824D9C7B129FF9, 0xE75B9E112F17417D, 0x4B4F050E5549ECD1

#: The first bytes of every index, also of those of directories.
MAGIC = struct.pack("<QQ", 48, INDEX)

#: Bytes before the items, of an item, and after the items.
HEAD_SIZE, ITEM_SIZE, TAIL_SIZE = 64, 40, 40

SUFFIX, STORE_SUFFIX, DEFAULT_STORE = ".caibx", ".castr", "default.castr"
CODEC = "cacnk"

#: Sizes of chunks that casync takes, in bytes.
LEAST_SIZE, GREATEST_SIZE = 1, 128 * MIB

WINDOW = 48  #: bytes under the hash of casync's chunker; no content ends a shorter chunk

_SHA512_256 = 1 << 61
_EXCLUDE_FILE, _EXCLUDE_NODUMP = 1 << 60, 1 << 63  # casync sets these in every index of a blob
_DIRECTORY = _EXCLUDE_FILE - 1  #: what is kept of the files of a directory


@dataclass(frozen=True, slots=True)
class Sizes:
    """Least, average and greatest bytes of a chunk. If all are the same, every chunk but the last has that size."""

    minimum: int
    average: int
    maximum: int

    @property
    def fixed(self) -> bool:
        return self.minimum == self.average == self.maximum

    @property
    def sound(self) -> bool:
        """Whether casync takes them."""
        return LEAST_SIZE <= self.minimum <= self.average <= self.maximum <= GREATEST_SIZE

    @property
    def longest(self) -> int:
        """Bytes of the longest chunk: without a full window nothing ends one."""
        return self.maximum if self.fixed else max(self.maximum, WINDOW)

    @property
    def discriminator(self) -> int:
        """What the hash is divided by: casync's fit for chunks of this average size."""
        wanted = int(self.average / (-1.42888852e-7 * self.average + 1.33237515))
        # For more than some 9 MiB casync's fit is negative, and then taken for a huge number.
        return self.maximum if wanted < 0 else min(max(wanted, self.minimum), self.maximum)

    @property
    def label(self) -> str:
        """As in `Recipe.chunker`."""
        return f"casync/{self.minimum}/{self.average}/{self.maximum}"

    @classmethod
    def of(cls, rule: str) -> Sizes | None:
        """Those that a label stands for; None for a rule that casync does not have."""
        name, *words = rule.split("/")
        if not all(word.isascii() and word.isdecimal() and len(word) < 11 for word in words):
            return None
        numbers = [int(word) for word in words]
        if name == "fixed" and len(numbers) == 1:
            numbers *= 3
        elif name != "casync" or len(numbers) != 3:
            return None
        sizes = cls(*numbers)
        return sizes if sizes.sound else None


def sizes_in(bounds: array[int]) -> Sizes:
    """Sizes that an index can give whose chunks another rule has cut."""
    lengths = [end - start for start, end in pairwise(bounds)] or [1]
    average = max(sum(lengths) // len(lengths), 1)
    # Not all the same: that would say that there is a cut at every multiple.
    return Sizes(min(lengths), average, max(*lengths, average + 1, WINDOW))


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed index. `bounds` has one entry more than there are chunks: chunk i is bounds[i]..bounds[i + 1]."""

    sizes: Sizes
    bounds: array[int]
    digests: DigestColumn
    flags: int = field(default=0, compare=False)  #: as they were read
    digest: bytes = field(default=b"", compare=False)  #: SHA-256 of the index as it was read

    @property
    def algorithm(self) -> Algorithm:
        return self.digests.algorithm or Algorithm.SHA512_256

    @property
    def lengths(self) -> array[int]:
        """Of the chunks, in bytes."""
        return array("I", (end - start for start, end in zip(self.bounds, self.bounds[1:], strict=False)))

    @property
    def image_size(self) -> int:
        """Bytes of the image."""
        return self.bounds[-1]

    @property
    def size(self) -> int:
        """Bytes of the index."""
        return HEAD_SIZE + ITEM_SIZE * len(self) + TAIL_SIZE

    @property
    def end(self) -> int:
        """Bytes that the file must have."""
        return self.size

    def __len__(self) -> int:
        return len(self.digests)


def parse_header(data: Buffer, *, limits: Limits = DEFAULT) -> Header:
    """A whole index: nothing may follow it. Raises FormatError, UnsupportedError, LimitError.

    Follows what casync checks, and more: ends rise, no chunk is longer than the index says, all is in `limits`.
    """
    if len(data) > limits.header_size:
        raise LimitError(f"casync index of {len(data)} bytes, more than limits.header_size = {limits.header_size}")
    cursor = Cursor(data, "casync index")
    if cursor.unpack("<QQ") != (48, INDEX):
        raise FormatError(f"not a casync index: it starts with {bytes(memoryview(data)[:16]).hex(' ')}", offset=0)
    flags, minimum, average, maximum, size, kind = cursor.unpack("<6Q")
    sizes = Sizes(minimum, average, maximum)
    if flags & _DIRECTORY:
        raise UnsupportedError(
            f"casync index of a directory archive (.caidx, feature flags {flags:#018x}): its chunks make up no image "
            "but a serialised tree of files (.catar)",
            offset=16,
            cure="make an index of a disk or file system image with `casync make NAME.caibx IMAGE`",
        )
    if not sizes.sound:
        raise FormatError(
            f"casync index: chunk sizes {minimum}, {average}, {maximum}: they rise from 1 to {GREATEST_SIZE}",
            offset=24,
        )
    if (size, kind) != ((1 << 64) - 1, TABLE):
        raise FormatError(f"casync index: a table of type {kind:#x} and size {size:#x}", offset=48)
    algorithm = Algorithm.SHA512_256 if flags & _SHA512_256 else Algorithm.SHA256
    bounds, digests = array("Q", [0]), DigestColumn(algorithm)
    _items(cursor, sizes, bounds, digests, limits)
    table = cursor.position - 8 - 48  # the first 8 bytes of the tail are read
    zero, start, length, marker = cursor.unpack("<4Q")
    if (zero, start, length, marker) != (0, 48, table + TAIL_SIZE, TAIL):
        raise FormatError(
            f"casync index: it ends with {zero}, {start}, {length} and {marker:#x} instead of 0, 48, "
            f"{table + TAIL_SIZE} and {TAIL:#x}",
            offset=cursor.position - 32,
        )
    cursor.finish()
    return Header(sizes, bounds, digests, flags, Algorithm.SHA256.of(data))


def _items(cursor: Cursor, sizes: Sizes, bounds: array[int], digests: DigestColumn, limits: Limits) -> None:
    """The items up to and with the first 8 bytes of the tail, which are 0: no chunk ends there."""
    before = 0
    while True:
        (end,) = cursor.unpack("<Q")
        if not end:
            return
        length = end - before
        if length <= 0 or length > sizes.longest:
            raise cursor.fail(f"chunk {len(digests)} from {before} to {end}, chunks have 1 to {sizes.longest} bytes")
        if length > limits.chunk_size or end > limits.image_size:
            raise LimitError(
                f"casync index: chunk {len(digests)} of {length} bytes ends at {end}, more than "
                f"{limits.chunk_size} (chunk_size) or {limits.image_size} (image_size)"
            )
        if len(digests) >= limits.chunks:
            raise LimitError(f"casync index: more than limits.chunks = {limits.chunks} chunks")
        digests.append(cursor.take(32))
        bounds.append(end)
        before = end


def build_header(header: Header) -> bytes:
    """The bytes of an index, as `casync make` writes it."""
    flags = _EXCLUDE_FILE | _EXCLUDE_NODUMP | (_SHA512_256 if header.algorithm == Algorithm.SHA512_256 else 0)
    sizes = header.sizes
    out = bytearray(MAGIC)
    out += struct.pack("<6Q", flags, sizes.minimum, sizes.average, sizes.maximum, (1 << 64) - 1, TABLE)
    for chunk in range(len(header)):
        out += struct.pack("<Q", header.bounds[chunk + 1]) + header.digests[chunk]
    return bytes(out + struct.pack("<5Q", 0, 0, 48, len(out) - 48 + TAIL_SIZE, TAIL))


def recipe(header: Header, store: str) -> Recipe:
    """What the image consists of: a unit and a row per chunk. `store` is where its chunks lie, for messages.

    The blob counts chunks of this index, not bytes (`Addressing.FILES`): unit n is `paths(header.digests[n])` in the
    store. Rows carry the digests of the plain chunks; the format has none of the image.
    """
    table, units = OpTable(header.algorithm), Units(None)
    for chunk in range(len(header)):
        length = header.bounds[chunk + 1] - header.bounds[chunk]
        unit = units.add(blob=0, codec=0, offset=chunk, stored=1, length=length, digest=None)
        table.add(length, header.digests[chunk], Op(Kind.DATA, unit=unit))
    made = Recipe(
        table,
        units,
        (Blob(store, len(header), Addressing.FILES),),
        (Codec(CODEC),),
        chunker=header.sizes.label,
        identity=header.digest,
    )
    made.check()
    return made


def paths(digest: bytes) -> tuple[str, ...]:
    """Where a chunk may lie in a store: compressed, or as it is."""
    name = f"{digest[:2].hex()}/{digest.hex()}"
    return f"{name}.cacnk", name


_PATH = re.compile(r"([0-9a-f]{4})/(\1[0-9a-f]{60})(\.cacnk)?")
_TEMPORARY = re.compile(r"([0-9a-f]{4})/\1[0-9a-f]{60}(\.cacnk)?\.[0-9a-zA-Z]+\.tmp")


def digest_of(path: str) -> bytes | None:
    """The digest of the chunk at a path in a store; None for what is no chunk's path."""
    found = _PATH.fullmatch(path)
    return bytes.fromhex(found[2]) if found else None


def is_temporary(path: str) -> bool:
    """Whether a file of a store is a chunk that was never finished, by its path."""
    return _TEMPORARY.fullmatch(path) is not None
