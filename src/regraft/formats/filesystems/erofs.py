# SPDX-License-Identifier: Apache-2.0
"""erofs: where the blocks of files begin and end. Follows linux/fs/erofs/erofs_fs.h.

The tree of directories is walked from its root. Of a compressed file the first physical block is looked up, in the
compact indexes or the full ones; its blocks lie behind each other. Chunk-based files and those whose bytes lie within
the metadata or with the tails of others have no place of their own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from regraft.errors import FormatError
from regraft.formats.filesystems.image import Image

_SUPERBLOCK = 1024
_MAGIC = 0xE0F5E1E2
_PLAIN, _FULL, _INLINE, _COMPACT = range(4)  # layouts of an inode's data
_BIG_CLUSTERS, _TAIL_INLINE, _FRAGMENT = 0x2, 0x8, 0x20  # of the advice in a map header
_WHOLLY_ELSEWHERE = 0x80  # of its cluster bits: all of the file is a fragment
_NON_HEAD = 2
_HOLE = 0xFFFFFFFF
_PIECE = 1 << 16
_DIRECTORY = 2  # in a directory entry


class _Volume(NamedTuple):
    image: Image
    bits: int  # of the block size
    metadata: int  # offset of the metadata


class _Inode(NamedTuple):
    end: int  # offset behind it and its attributes
    layout: int
    mode: int
    size: int
    word: int  # first block of plain data, or number of compressed blocks


def recognised(head: bytes) -> bool:
    """Whether these first 4096 bytes are those of such a file system."""
    return bool(struct.unpack_from("<I", head, _SUPERBLOCK)[0] == _MAGIC)


def cuts(image: Image) -> Iterator[int]:
    """Offsets in bytes, unordered, where what belongs together begins or ends. Raises FormatError, LimitError."""
    head = image.take(_SUPERBLOCK, 128)
    bits, root = struct.unpack_from("<12x B x H", head)
    blocks, metadata = struct.unpack_from("<36x I I", head)
    if not 9 <= bits <= 16:
        raise FormatError(f"erofs: blocks of 2^{bits} bytes", offset=_SUPERBLOCK + 12)
    volume = _Volume(image, bits, metadata << bits)
    yield blocks << bits
    yield metadata << bits
    todo, seen = [root], {root}
    while todo:
        inode = _inode(volume, todo.pop())
        yield from _extent(volume, inode)
        if inode.mode & 0xF000 == 0x4000 and inode.layout in (_PLAIN, _INLINE):
            for nid, kind in _entries(volume, inode):
                if kind == _DIRECTORY:
                    if nid not in seen:
                        seen.add(nid)
                        todo.append(nid)
                else:
                    yield from _extent(volume, _inode(volume, nid))


def _inode(volume: _Volume, nid: int) -> _Inode:
    at = volume.metadata + 32 * nid
    head = volume.image.take(at, 32)
    form, attributes, mode = struct.unpack_from("<3H", head)
    size, word = struct.unpack_from("<Q I" if form & 1 else "<I 4x I", head, 8)
    end = at + (64 if form & 1 else 32) + (12 + 4 * (attributes - 1) if attributes else 0)
    return _Inode(end, form >> 1 & 7, mode, size, word)


def _extent(volume: _Volume, inode: _Inode) -> Iterator[int]:
    """Where its blocks begin and end, if it has any."""
    if inode.mode & 0xF000 not in (0x8000, 0x4000, 0xA000):
        return
    if inode.layout in (_PLAIN, _INLINE):
        whole = inode.size >> volume.bits if inode.layout == _INLINE else -(-inode.size >> volume.bits)
        if whole and inode.word != _HOLE:
            yield inode.word << volume.bits
            yield inode.word + whole << volume.bits
    elif inode.layout in (_FULL, _COMPACT) and inode.size and inode.word:
        first = _first_block(volume, inode)
        if first is not None:
            yield first << volume.bits
            yield first + inode.word << volume.bits


def _first_block(volume: _Volume, inode: _Inode) -> int | None:
    """The first block of a compressed file; None if it does not begin with a block of its own."""
    at = -(-inode.end // 8) * 8
    header = volume.image.take(at, 48)
    advice, bits = struct.unpack_from("<4x H x B", header)
    single = inode.size <= 4096 << (bits & 7)
    if bits & _WHOLLY_ELSEWHERE or (single and advice & (_TAIL_INLINE | _FRAGMENT)):
        return None
    if inode.layout == _FULL:
        kind, block = struct.unpack_from("<H 2x I", header, 16)
        return None if kind & 3 == _NON_HEAD else int(block)
    # The first pack of compact indexes: two of 16 bits, or from an offset divisible by 32 on sixteen of 14, and then
    # the block that the first of them counts from.
    packed = bool(advice & 1) and (at + 8) % 32 == 0 and -(-inode.size >> 12 + (bits & 7)) >= 16
    kind = struct.unpack_from("<H", header, 8)[0] >> 12 + (bits & 7) & 3
    (base,) = struct.unpack_from("<I", header, 8 + (28 if packed else 4))
    return None if kind == _NON_HEAD else int(base) + (0 if advice & _BIG_CLUSTERS else 1) & 0xFFFFFFFF


def _entries(volume: _Volume, inode: _Inode) -> Iterator[tuple[int, int]]:
    """(number of the inode, kind) of each entry of a directory but itself and its parent."""
    block = 1 << volume.bits
    for start in range(0, inode.size, block):
        length = min(block, inode.size - start)
        inline = inode.layout == _INLINE and start + block > inode.size
        data = volume.image.take(inode.end if inline else (inode.word << volume.bits) + start, length)
        names = struct.unpack_from("<8x H", data)[0] if length >= 12 else 0
        if names % 12 or not 12 <= names <= length:
            raise FormatError("erofs: a block of a directory makes no sense")
        for at in range(0, names, 12):
            nid, name, kind = struct.unpack_from("<Q H B", data, at)
            end = struct.unpack_from("<H", data, at + 20)[0] if at + 12 < names else length
            if data[name:end].rstrip(b"\0") not in (b".", b".."):
                yield nid, kind
