# SPDX-License-Identifier: Apache-2.0
"""ext2, ext3 and ext4: where files begin and end. Follows the kernel's Documentation/filesystems/ext4.

Looked at are the superblock, the group descriptors, the inode tables and the trees of extents. Of files that are mapped
block by block, as those of ext2 and ext3 are, only the start is found.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from regraft.errors import FormatError, UnsupportedError
from regraft.formats.filesystems.image import Image

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_JOURNAL_DEVICE, _META_GROUPS, _64BIT = 0x8, 0x10, 0x80  # of the incompatible features
_CHECKSUMS = 0x10 | 0x400  # of the read-only compatible ones: then unused inodes are counted
_NO_INODES = 1  # of a group's flags
_EXTENTS, _INLINE = 0x80000, 0x10000000  # of an inode's flags
_EXTENT_MAGIC = 0xF30A
_DEEPEST = 5
_UNWRITTEN = 32768
_PIECE = 1 << 18  # bytes of an inode table read at once
_WITH_BLOCKS = (0x8000, 0x4000, 0xA000)  # kinds of inodes: regular, directory, symbolic link


def recognised(head: bytes) -> bool:
    """Whether these first 4096 bytes are those of such a file system."""
    return bool(struct.unpack_from("<H", head, _SUPERBLOCK + 56)[0] == _MAGIC)


def cuts(image: Image) -> Iterator[int]:
    """Offsets in bytes, unordered, where what belongs together begins or ends.

    Raises FormatError, UnsupportedError, LimitError.
    """
    found = image.take(_SUPERBLOCK, 1024)
    inodes, low, first, log = struct.unpack_from("<I I 12x I I", found)
    per_group, inodes_per_group = struct.unpack_from("<I 4x I", found, 32)
    inode_size, incompatible, compatible = struct.unpack_from("<H 6x I I", found, 88)
    revision, descriptor_size = struct.unpack_from("<I", found, 76)[0], struct.unpack_from("<H", found, 254)[0]
    if not revision:
        inode_size = 128
    if incompatible & (_JOURNAL_DEVICE | _META_GROUPS):
        raise UnsupportedError(f"ext4: features {incompatible:#x}", offset=_SUPERBLOCK + 96)
    wide = bool(incompatible & _64BIT)
    blocks = low | (struct.unpack_from("<I", found, 336)[0] << 32 if wide else 0)
    if not wide:
        descriptor_size = 32
    if log > 6 or not per_group or not inodes_per_group or not 128 <= inode_size <= 1024 << log:
        raise FormatError("ext4: the superblock makes no sense", offset=_SUPERBLOCK)
    if descriptor_size < (64 if wide else 32) or descriptor_size > 1024:
        raise FormatError(f"ext4: group descriptors of {descriptor_size} bytes", offset=_SUPERBLOCK + 254)
    block = 1024 << log
    yield blocks * block
    descriptors = (first + 1) * block
    left = inodes
    for group in range(-(-max(blocks - first, 0) // per_group)):
        descriptor = image.take(descriptors + group * descriptor_size, descriptor_size)
        table, flags, unused = struct.unpack_from("<8x I 6x H 8x H", descriptor)
        if wide:
            table |= struct.unpack_from("<I", descriptor, 40)[0] << 32
            unused |= struct.unpack_from("<H", descriptor, 50)[0] << 16
        count = min(inodes_per_group, left)
        left -= count
        yield table * block
        yield table * block + count * inode_size
        if compatible & _CHECKSUMS:
            count = 0 if flags & _NO_INODES else max(count - unused, 0)
        yield from _inodes(image, table * block, count, inode_size, block)


def _inodes(image: Image, table: int, count: int, size: int, block: int) -> Iterator[int]:
    """What the used ones of `count` inodes at `table` say. An inode that makes no sense says nothing."""
    step = max(_PIECE // size, 1)
    for start in range(0, count, step):
        piece = image.take(table + start * size, min(step, count - start) * size)
        for at in range(0, len(piece), size):
            mode = piece[at] | piece[at + 1] << 8
            if not mode or mode & 0xF000 not in _WITH_BLOCKS:
                continue
            links, flags = struct.unpack_from("<H 4x I", piece, at + 26)
            if not links or flags & _INLINE:
                continue
            map_ = piece[at + 40 : at + 100]
            if flags & _EXTENTS:
                try:
                    yield from _joined(_extents(image, map_, block, None), block)
                except FormatError:
                    continue
            elif mode & 0xF000 != 0xA000:  # a short link is kept in place of the map
                yield struct.unpack_from("<I", map_)[0] * block


def _joined(extents: Iterator[tuple[int, int]], block: int) -> Iterator[int]:
    """Start and end of runs of extents that lie behind each other."""
    end = -1
    for start, length in extents:
        if start != end:
            if end >= 0:
                yield end * block
            yield start * block
        end = start + length
    if end >= 0:
        yield end * block


def _extents(image: Image, node: bytes, block: int, expected: int | None) -> Iterator[tuple[int, int]]:
    """(first block, blocks) of each extent below a node of the tree, in logical order."""
    magic, entries, _, depth = struct.unpack_from("<4H", node)
    if magic != _EXTENT_MAGIC or entries * 12 + 12 > len(node) or depth > _DEEPEST:
        raise FormatError("ext4: a node of a tree of extents makes no sense")
    if expected is not None and depth != expected:
        raise FormatError(f"ext4: a node of depth {depth} where {expected} belongs")
    for at in range(12, 12 + 12 * entries, 12):
        if depth:
            low, high = struct.unpack_from("<I H", node, at + 4)
            child = image.take((low | high << 32) * block, block)
            yield from _extents(image, child, block, depth - 1)
        else:
            length, high, low = struct.unpack_from("<H H I", node, at + 4)
            yield low | high << 32, length - _UNWRITTEN if length > _UNWRITTEN else length
