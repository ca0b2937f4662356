# SPDX-License-Identifier: Apache-2.0
"""squashfs 4: where the compressed blocks of files, fragments and tables begin and end. Follows linux/squashfs_fs.h.

The table of inodes is read from end to end, block by block; no directory is. A file's blocks lie behind each other.
Tables that are compressed with gzip, xz, lzma or zstd, or not at all, are read; lzo and lz4 are not.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Iterator

import zstandard

from regraft.errors import FormatError, UnsupportedError
from regraft.formats.filesystems.image import Image

_HEAD = 96
_BLOCK = 8192  # bytes of a block of metadata, unpacked
_NONE = 0xFFFFFFFF
_NO_TABLE = 0xFFFFFFFFFFFFFFFF
_NAMES = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}

#: Bytes of the inodes of each type, without what follows: (all, where a length follows).
_SIZES = {1: 32, 2: 32, 3: 24, 4: 24, 5: 24, 6: 20, 7: 20, 8: 40, 9: 56, 10: 24, 11: 28, 12: 28, 13: 24, 14: 24}


def recognised(head: bytes) -> bool:
    """Whether these first 4096 bytes are those of a squashfs of version 4."""
    return head[:4] == b"hsqs" and head[28:30] == b"\4\0"


def cuts(image: Image) -> Iterator[int]:
    """Offsets in bytes, unordered, where what belongs together begins or ends.

    Raises FormatError, UnsupportedError, LimitError.
    """
    head = image.take(0, _HEAD)
    inodes, _, block_size, fragments, compression = struct.unpack_from("<4x I I I I H", head)
    used, *tables = struct.unpack_from("<7Q", head, 40)
    _ids, _attributes, inode_table, directory_table, fragment_table, _export = tables
    if block_size & (block_size - 1) or not 4096 <= block_size <= 1 << 20:
        raise FormatError(f"squashfs: blocks of {block_size} bytes", offset=12)
    if not _HEAD <= inode_table <= directory_table <= used <= image.size:
        raise FormatError("squashfs: its tables lie in no order", offset=64)
    yield used
    for table in tables:
        if table != _NO_TABLE:
            yield table
    unpack = _unpacker(compression)
    yield from _fragments(image, fragment_table, fragments, unpack)
    yield from _files(_Table(image, inode_table, directory_table, unpack), inodes, block_size)


Unpack = Callable[[bytes], bytes]


def _unpacker(number: int) -> Unpack:
    """Gives at most a block. Raises UnsupportedError."""
    if number == 1:
        return lambda data: zlib.decompressobj().decompress(data, _BLOCK)
    if number in (2, 4):
        form = lzma.FORMAT_ALONE if number == 2 else lzma.FORMAT_XZ
        return lambda data: lzma.LZMADecompressor(form, memlimit=8 << 20).decompress(data, _BLOCK)
    if number == 6:
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 20)

        def zstd(data: bytes) -> bytes:
            with decompressor.stream_reader(data) as reader:
                found: bytes = reader.read(_BLOCK)
            return found

        return zstd
    raise UnsupportedError(f"squashfs: tables compressed with {_NAMES.get(number, number)}", offset=20)


def _block(image: Image, at: int, unpack: Unpack) -> tuple[bytes, int]:
    """A block of metadata, unpacked, and where the next one lies."""
    (word,) = struct.unpack("<H", image.take(at, 2))
    length = word & 0x7FFF
    if not 0 < length <= _BLOCK:
        raise FormatError(f"squashfs: a block of metadata of {length} bytes", offset=at)
    data = image.take(at + 2, length)
    if not word & 0x8000:
        image.charge(_BLOCK)
        try:
            data = unpack(data)
        except (zlib.error, lzma.LZMAError, EOFError, zstandard.ZstdError) as error:
            raise FormatError(f"squashfs: {error}", offset=at) from None
    return data, at + 2 + length


def _fragments(image: Image, table: int, count: int, unpack: Unpack) -> Iterator[int]:
    """Where the blocks with the ends of many files begin and end."""
    if table == _NO_TABLE:
        return
    for start in range(0, count, 512):
        (at,) = struct.unpack("<Q", image.take(table + start // 512 * 8, 8))
        data, _ = _block(image, at, unpack)
        for place in range(0, min(512, count - start) * 16, 16):
            if place + 16 > len(data):
                raise FormatError("squashfs: the table of fragments is too short", offset=at)
            first, word = struct.unpack_from("<Q I", data, place)
            yield first
            yield first + (word & 0xFFFFFF)


class _Table:
    """The bytes of the table of inodes, in order."""

    def __init__(self, image: Image, start: int, end: int, unpack: Unpack) -> None:
        self._image, self._at, self._end, self._unpack = image, start, end, unpack
        self._data = b""
        self._place = 0

    def take(self, count: int) -> bytes:
        while len(self._data) - self._place < count:
            if self._at >= self._end:
                raise FormatError("squashfs: the table of inodes ends within an inode", offset=self._at)
            found, self._at = _block(self._image, self._at, self._unpack)
            self._data, self._place = self._data[self._place :] + found, 0
        self._place += count
        return self._data[self._place - count : self._place]

    def skip(self, count: int) -> None:
        while count > 0:
            self.take(min(count, _BLOCK))
            count -= _BLOCK


def _files(table: _Table, inodes: int, block_size: int) -> Iterator[int]:
    """Where the blocks of each file begin and end."""
    for _ in range(inodes):
        head = table.take(16)
        kind = struct.unpack_from("<H", head)[0]
        if kind not in _SIZES:
            raise FormatError(f"squashfs: an inode of type {kind}")
        rest = table.take(_SIZES[kind] - 16)
        if kind in (2, 9):
            if kind == 2:
                start, fragment, size = struct.unpack("<I I 4x I", rest)
            else:
                start, size, fragment = struct.unpack("<Q Q 12x I 8x", rest)
            count = size // block_size + (fragment == _NONE and size % block_size > 0)
            yield from _blocks(table, start, count)
        elif kind in (3, 10):
            table.skip(struct.unpack_from("<4x I", rest)[0])
            if kind == 10:
                table.skip(4)
        elif kind == 8:
            for _ in range(struct.unpack_from("<16x H", rest)[0]):
                table.skip(struct.unpack("<8x I", table.take(12))[0] + 1)


def _blocks(table: _Table, start: int, count: int) -> Iterator[int]:
    if count:
        yield start
    end = start
    for first in range(0, count, 1024):
        number = min(1024, count - first)
        for word in struct.unpack(f"<{number}I", table.take(4 * number)):
            end += word & 0xFFFFFF
            if word:
                yield end
