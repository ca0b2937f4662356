# SPDX-License-Identifier: Apache-2.0
"""Whole-file compression of artifacts: gzip (RFC 1952), xz, zstd (RFC 8878). Bounded, piece by piece.

However hard a file was compressed, no piece of its content is larger than asked for, and the sum not than `maximum`.
Several members, streams or frames end to end are one file, as their tools have it. Other bytes behind are an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Literal, TypeAlias, cast, get_args

from regraft.errors import FormatError, LimitError, UnsupportedError
from regraft.limits import DEFAULT, Limits

Codec: TypeAlias = Literal["zlib", "xz", "zstd"]
CODECS: tuple[Codec, ...] = get_args(Codec)
_PIECE = 128 * 1024  #: decoded bytes at once


def decompress(
    pieces: Iterable[bytes], codec: Codec, *, maximum: int | None = None, limits: Limits = DEFAULT
) -> Iterator[bytes]:
    """The decoded bytes in pieces of at most 128 KiB.

    `codec` is sw-description's word: `zlib` (a gzip file), `xz`, `zstd`. `maximum` is in decoded bytes, `image_size` of
    the limits by default. Raises FormatError (damaged, cut off, followed by other bytes), LimitError, UnsupportedError.
    """
    bound = limits.image_size if maximum is None else maximum
    if codec == "zlib":
        decoded = _gzip(pieces)
    elif codec == "xz":
        decoded = _xz(pieces, limits)
    elif codec == "zstd":
        decoded = _zstd(pieces, limits)
    else:
        raise UnsupportedError(f"the compression {codec!r} is not known", cure=f"use one of {', '.join(CODECS)}")
    total = 0
    for piece in decoded:
        total += len(piece)
        if total > bound:
            raise LimitError(f"more than {bound} bytes come out of a {codec} file (limit image_size)")
        yield piece


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    decoder, fresh, offset = zlib.decompressobj(wbits=31), True, 0
    for piece in pieces:
        data = piece
        while data:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=31)
            fresh = False
            try:
                plain = decoder.decompress(data, _PIECE)
            except zlib.error as error:
                raise FormatError(f"gzip: {error}", offset=offset) from None
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if plain:
                yield plain
        offset += len(piece)
    # What is left inside the decoder comes out of further calls without input.
    while not fresh and not decoder.eof and (plain := decoder.decompress(b"", _PIECE)):
        yield plain
    if fresh or not decoder.eof:
        raise FormatError("gzip: the file is cut off", offset=offset)


def _xz(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    import lzma

    decoder, fresh, offset = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.xz_memory), True, 0
    for piece in pieces:
        data = piece
        while data or not (decoder.eof or decoder.needs_input):
            if decoder.eof:
                decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.xz_memory)
            fresh = False
            try:
                plain = decoder.decompress(data, _PIECE)
            except lzma.LZMAError as error:
                raise FormatError(f"xz: {error}", offset=offset) from None
            data = decoder.unused_data if decoder.eof else b""
            if plain:
                yield plain
        offset += len(piece)
    if fresh or not decoder.eof:
        raise FormatError("xz: the file is cut off", offset=offset)


def _zstd(pieces: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    import zstandard

    source = _Source(pieces)
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << limits.zstd_window_log)
    try:
        with decoder.stream_reader(
            cast("BinaryIO", source), read_size=_PIECE, read_across_frames=True, closefd=False
        ) as reader:
            while plain := reader.read(_PIECE):
                yield plain
    except zstandard.ZstdError as error:
        raise FormatError(f"{error}", offset=source.offset) from None
    except MemoryError:
        raise LimitError(f"zstd: no memory for a window of up to 2^{limits.zstd_window_log} bytes") from None
    source.frames.finish()


class _Source:
    """Pieces as something to `read` from, watched for whole frames."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")
        self.frames = _Frames()
        self.offset = 0

    def read(self, count: int = -1) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        taken = self._rest if count < 0 else self._rest[:count]
        self._rest = self._rest[len(taken) :]
        self.offset += len(taken)
        self.frames.feed(taken)
        return bytes(taken)


class _Frames:
    """Follows the outlines of zstd frames (RFC 8878, section 3.1): the library takes a cut file for a whole one."""

    _MAGIC, _SKIPPABLE = 0xFD2FB528, 0x184D2A50

    def __init__(self) -> None:
        self._state = "magic"
        self._need = 4
        self._buffer = bytearray()
        self._skip = 0
        self._sum = False
        self._frames = 0

    def feed(self, data: memoryview) -> None:
        while data:
            if self._skip:
                step = min(self._skip, len(data))
                self._skip -= step
            else:
                step = min(self._need - len(self._buffer), len(data))
                self._buffer += data[:step]
                if len(self._buffer) == self._need:
                    self._advance(int.from_bytes(self._buffer, "little"))
                    self._buffer.clear()
            data = data[step:]

    def finish(self) -> None:
        """Raise FormatError unless the input ended between two frames."""
        if self._state != "magic" or self._buffer or self._skip or not self._frames:
            raise FormatError("zstd: the file is cut off")

    def _advance(self, value: int) -> None:
        if self._state == "magic":
            if value & 0xFFFFFFF0 == self._SKIPPABLE:
                self._state, self._need = "skippable", 4
            elif value == self._MAGIC:
                self._state, self._need = "descriptor", 1
            else:
                raise FormatError("zstd: no frame where one should begin")
            self._frames += 1
        elif self._state == "skippable":
            self._skip, self._state = value, "magic"
        elif self._state == "descriptor":
            single = value >> 5 & 1
            self._sum = bool(value >> 2 & 1)
            self._skip = (not single) + (0, 1, 2, 4)[value & 3] + (single, 2, 4, 8)[value >> 6]
            self._state, self._need = "block", 3
        elif self._state == "block":
            last, kind, size = value & 1, value >> 1 & 3, value >> 3
            self._skip = 1 if kind == 1 else size
            if last:
                self._skip += 4 if self._sum else 0
                self._state, self._need = "magic", 4
