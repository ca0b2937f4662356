# SPDX-License-Identifier: Apache-2.0
"""The index of one pack of a chunk store, as bytes: a header, then groups of records that are only ever appended.

    header   magic 8 · pack number u32 · length of the label u8 · label of the digest algorithm · CRC-32 of these u32
    group    magic 4 · count u32 · count x block u32 · count x length u32 · count x digest · CRC-32 u32

All little-endian. A record says that `length` bytes with that digest lie in the pack from byte 4096 x block on; a
length of 0 takes back what was said of that block. The CRC of a group starts from that of the header, so that a group
of another pack does not count. A group counts only if all of it is there: a torn tail is the state of a moment earlier,
and behind a damaged group the next sound one is looked for.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.errors import FormatError, LimitError
from regraft.formats.cursor import Cursor
from regraft.limits import DEFAULT, Limits
from regraft.model import Algorithm, DigestColumn
from regraft.model.buffers import Buffer
from regraft.model.recipe import SHORTEST_IDENTITY

MAGIC = b"RGPACK\x00\x01"
BLOCK = 4096  #: chunks start at multiples of it
_GROUP = b"RGGR"
_GROUP_HEAD = 8
_TRIES = 64  #: places behind damage where a group is looked for


@dataclass(slots=True)
class PackIndex:
    """What a pack holds. Columns have an entry per record, in the order of writing."""

    number: int
    digests: DigestColumn
    blocks: array[int]  #: where the chunk starts, in blocks of 4096 bytes
    lengths: array[int]  #: in bytes
    seed: int  #: CRC-32 that groups start from
    end: int  #: where the next group goes, in bytes
    skipped: int = 0  #: bytes of the file that do not count

    @property
    def algorithm(self) -> Algorithm:
        algorithm = self.digests.algorithm
        if algorithm is None:
            raise ValueError("a pack has digests")
        return algorithm

    @property
    def pack_size(self) -> int:
        """Bytes that the pack must have: up to the end of the last chunk."""
        return max(map(self.ends, range(len(self))), default=0)

    def ends(self, row: int) -> int:
        """Where the chunk of a record ends in the pack, in bytes."""
        return BLOCK * self.blocks[row] + self.lengths[row]

    def __len__(self) -> int:
        return len(self.lengths)


def blocks_of(length: int) -> int:
    """Blocks that a chunk of `length` bytes takes."""
    return -(-length // BLOCK)


def build_header(number: int, algorithm: Algorithm) -> bytes:
    label = algorithm.label.encode()
    head = MAGIC + struct.pack("<IB", number, len(label)) + label
    return head + struct.pack("<I", zlib.crc32(head))


def build_group(header_crc: int, blocks: Sequence[int], lengths: Sequence[int], digests: Buffer) -> bytes:
    """Records to append. header_crc: `crc_of` the header. digests: as many, joined."""
    count = len(blocks)
    body = _GROUP + struct.pack(f"<I{count}I{count}I", count, *blocks, *lengths) + bytes(digests)
    return body + struct.pack("<I", zlib.crc32(body, header_crc))


def crc_of(header: Buffer) -> int:
    """What the CRCs of the groups behind this header start from."""
    return zlib.crc32(header[:-4])  # with its own CRC it would be the same for every header


def parse(data: Buffer, *, limits: Limits = DEFAULT) -> PackIndex:
    """Raises FormatError, LimitError if the header is not sound; groups that are not do not count."""
    if len(data) > limits.pack_index_size:
        raise LimitError(f"pack index: {len(data)} bytes, more than {limits.pack_index_size} (pack_index_size)")
    view = memoryview(data).cast("B")
    cursor = Cursor(view, "pack index")
    if cursor.take(len(MAGIC)) != MAGIC:
        raise FormatError("not a pack index", offset=0)
    number, size = cursor.unpack("<IB")
    label = cursor.take(size)
    (checksum,) = cursor.unpack("<I")
    if checksum != zlib.crc32(view[: cursor.position - 4]):
        raise FormatError("pack index: the header differs from its checksum", offset=cursor.position - 4)
    try:
        algorithm = Algorithm.named(label.decode("ascii"))
    except (KeyError, UnicodeDecodeError):
        raise FormatError(f"pack index: unknown digest algorithm {label!r}", offset=13) from None
    if algorithm.size < SHORTEST_IDENTITY:
        raise FormatError(f"pack index: digests of {algorithm.size} bytes identify nothing", offset=13)
    index = PackIndex(
        number, DigestColumn(algorithm), array("I"), array("I"), crc_of(view[: cursor.position]), cursor.position
    )
    _read_groups(index, view, limits)
    _take_back(index)
    return index


def _read_groups(index: PackIndex, view: memoryview, limits: Limits) -> None:
    whole = bytes(view)
    position, tries = index.end, 0
    while position < len(view) and tries < _TRIES:
        end = _group(index, view, position, limits)
        if end:
            index.skipped += position - index.end
            index.end = position = end
        else:
            tries += 1
            position = whole.find(_GROUP, position + 1)
            if position < 0:
                break
    index.skipped += len(view) - index.end


def _group(index: PackIndex, view: memoryview, position: int, limits: Limits) -> int:
    """Take in the group at `position`; returns where it ends, 0 if it does not count."""
    if view[position : position + 4] != _GROUP or position + _GROUP_HEAD > len(view):
        return 0
    (count,) = struct.unpack_from("<I", view, position + 4)
    blocks = position + _GROUP_HEAD
    lengths, digests = blocks + 4 * count, blocks + 8 * count
    end: int = digests + index.algorithm.size * count
    if count + len(index) > limits.chunks or end + 4 > len(view):
        return 0
    if struct.unpack_from("<I", view, end)[0] != zlib.crc32(view[position:end], index.seed):
        return 0
    found = _numbers(view[lengths:digests])
    if max(found, default=0) > limits.chunk_size:
        return 0
    index.blocks.extend(_numbers(view[blocks:lengths]))
    index.lengths.extend(found)
    index.digests.data += view[digests:end]
    return end + 4


def _numbers(view: memoryview) -> array[int]:
    numbers = array("I")
    numbers.frombytes(view)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def keep(index: PackIndex, rows: Sequence[int]) -> None:
    """Forget all records but these."""
    index.digests = DigestColumn(index.algorithm, b"".join(index.digests[row] for row in rows))
    index.blocks = array("I", [index.blocks[row] for row in rows])
    index.lengths = array("I", [index.lengths[row] for row in rows])


def _take_back(index: PackIndex) -> None:
    if 0 in index.lengths:
        gone = {block for block, length in zip(index.blocks, index.lengths, strict=True) if not length}
        keep(index, [row for row, block in enumerate(index.blocks) if block not in gone])
