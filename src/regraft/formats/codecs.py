# SPDX-License-Identifier: Apache-2.0
"""The codecs in which units are stored: bytes to bytes, with every length known beforehand."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from types import ModuleType

import zstandard

from regraft.errors import FormatError, LimitError, MissingError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

#: `deflate` is RFC 1951 without a header, `zlib` RFC 1950, `gzip` RFC 1952, `lz4` one block of LZ4 and not its frame
#: format; `cacnk` whatever casync's chunk files hold: zstd, xz or gzip, known by content, or the chunk itself.
NAMES = ("none", "zstd", "brotli", "xz", "deflate", "zlib", "gzip", "bzip2", "lz4", "cacnk")

_MAGICS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip"}
_WINDOW_BITS = {"deflate": -15, "zlib": 15, "gzip": 31}  # as zlib's library tells their headers apart

#: Bytes asked of a decoder at once; brotli's gives up to twice as many.
_STEP = 1 << 18


def most_stored(length: int) -> int:
    """Bytes that no encoder of ours or theirs makes more of, from a unit of `length` bytes that does not shrink."""
    return length + length // 256 + 512


def brotli() -> ModuleType:
    """The package brotli, which regraft needs only for brotli. Raises MissingError."""
    cure = "pip install 'regraft[bita]' (brotli 1.2 or later)"
    try:
        module = importlib.import_module("brotli")
    except ImportError as error:
        raise MissingError(f"brotli cannot be used: {error}", cure=cure) from None
    found = tuple(int(part) for part in module.__version__.split(".")[:2] if part.isdecimal())
    if found < (1, 2):  # before, nothing bounds what a few bytes decode to
        raise MissingError(f"brotli {module.__version__} is too old", cure=cure)
    return module


def lz4() -> ModuleType:
    """The module lz4.block, which regraft needs only for LZ4. Raises MissingError."""
    try:
        return importlib.import_module("lz4.block")
    except ImportError as error:
        raise MissingError(f"LZ4 cannot be used: {error}", cure="pip install 'regraft[lz4]'") from None


class Decoder:
    """Decodes units of one codec, from any thread.

    name: one of `NAMES`. "cacnk" is a chunk file of casync: zstd, xz or gzip, as its first bytes say, or as it is.
    dictionary: decoded bytes of the dictionary, if the units were made with one.
    """

    def __init__(self, name: str, *, dictionary: bytes | None = None, limits: Limits = DEFAULT) -> None:
        if name not in NAMES:
            raise UnsupportedError(f"codec {name!r}: regraft reads {', '.join(NAMES)}")
        self._name = name
        if dictionary and name != "zstd":
            raise UnsupportedError(f"codec {name!r} with a dictionary")
        self._brotli = brotli() if name == "brotli" else None
        self._lz4 = lz4() if name == "lz4" else None
        self._xz_memory = limits.xz_memory
        self._dictionary = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        # A window larger than any unit would only take memory.
        self._window = 1 << min(limits.zstd_window_log, max(limits.chunk_size - 1, 1 << 10).bit_length())
        self._local = threading.local()

    def decode(self, stored: Buffer, length: int, *, room: int = 0) -> Buffer:
        """The unit's bytes, exactly `length` of them. Raises FormatError; never allocates more than asked for.

        room: bytes to which the unit may decode, if the format does not tell how many they are; the first `length`
        count, and are returned.
        """
        name, most = self._codec_of(stored), max(length, room)
        try:
            return self._decode(name, stored, length, most)
        except FormatError:
            if self._name != "cacnk" or len(stored) != length:
                raise
            return stored  # a plain chunk that begins as a compressed one does

    def _codec_of(self, stored: Buffer) -> str:
        if self._name != "cacnk":
            return self._name
        head = bytes(memoryview(stored)[:6])
        return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), "none")

    def _decode(self, name: str, stored: Buffer, length: int, most: int) -> Buffer:
        if name == "none":
            if not length <= len(stored) <= most:
                raise FormatError(f"a unit of {length} bytes is stored in {len(stored)}")
            return stored if len(stored) == length else memoryview(stored)[:length]
        if name == "zstd":
            return self._zstd(stored, length, most)
        if name == "lz4":
            return self._block(stored, length, most)
        data, end = bytearray(length), 0  # one buffer: a chunk of the greatest length must not be there twice
        for piece in self._pieces(name, stored, most):
            kept = piece[: max(length - end, 0)]
            data[end : end + len(kept)] = kept
            end += len(piece)
            if end > most:
                raise FormatError(f"a unit of {length} bytes decodes to more")
        if end < length:
            raise FormatError(f"a unit of {length} bytes decodes to {end}")
        return data

    def decode_all(self, stored: Buffer, most: int) -> bytes:
        """The bytes of a unit that does not tell how many they are, at most `most`. Raises FormatError.

        For codecs whose streams have an end: not for lz4.
        """
        name = self._codec_of(stored)
        if name == "none":
            data = bytes(stored)
        elif name == "zstd":
            data = bytes(self._zstd(stored, 0, most, whole=True))
        elif name == "lz4":
            raise UnsupportedError("an lz4 block of unknown length")
        else:
            data = b"".join(self._pieces(name, stored, most))
        if len(data) > most:
            raise FormatError(f"a unit of at most {most} bytes decodes to more")
        return data

    def _pieces(self, name: str, stored: Buffer, most: int) -> Iterator[bytes]:
        if name == "brotli":
            return self._bounded_brotli(stored, most)
        if name == "xz":
            return self._xz(stored, most)
        return self._bzip2(stored, most) if name == "bzip2" else self._zlib(name, stored, most)

    def _zlib(self, name: str, stored: Buffer, length: int) -> Iterator[bytes]:
        import zlib

        decoder = zlib.decompressobj(wbits=_WINDOW_BITS[name])
        fed, left = bytes(stored), length + 1
        try:
            while left > 0 and not decoder.eof:
                piece = decoder.decompress(fed, min(left, _STEP))
                if not piece and not decoder.eof and not decoder.unconsumed_tail:
                    break
                fed, left = decoder.unconsumed_tail, left - len(piece)
                yield piece
        except zlib.error as error:
            raise FormatError(f"{name}: {error}") from None
        if not decoder.eof or decoder.unused_data:
            raise FormatError(f"{name}: the unit does not end with its stream")

    def _bzip2(self, stored: Buffer, length: int) -> Iterator[bytes]:
        import bz2

        decoder = bz2.BZ2Decompressor()
        fed, left = stored, length + 1
        try:
            while left > 0 and not decoder.eof and (fed or not decoder.needs_input):
                piece = decoder.decompress(fed, min(left, _STEP))
                fed, left = b"", left - len(piece)
                yield piece
        except (OSError, ValueError) as error:
            raise FormatError(f"bzip2: {error}") from None
        if not decoder.eof or decoder.unused_data:
            raise FormatError("bzip2: the unit does not end with its stream")

    def _block(self, stored: Buffer, length: int, most: int) -> Buffer:
        module = self._lz4
        if module is None:
            raise MissingError("lz4 was not loaded")
        try:  # a block does not say how long it is: without room for all of it, this is an error
            data: bytes = module.decompress(bytes(stored), uncompressed_size=most)
        except (module.LZ4BlockError, ValueError, MemoryError) as error:
            raise FormatError(f"lz4: {error}") from None
        if len(data) < length:
            raise FormatError(f"a unit of {length} bytes decodes to {len(data)}")
        return data if len(data) == length else memoryview(data)[:length]

    def _xz(self, stored: Buffer, length: int) -> Iterator[bytes]:
        import lzma

        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._xz_memory)
        fed, left = stored, length + 1  # one byte more, to see the end of the stream or that there is none
        try:
            while left > 0 and not decoder.eof and (fed or not decoder.needs_input):
                piece = decoder.decompress(fed, min(left, _STEP))
                fed, left = b"", left - len(piece)
                yield piece
        except lzma.LZMAError as error:
            if "limit" in str(error):
                raise LimitError(f"xz: more than limits.xz_memory = {self._xz_memory} bytes to decode") from None
            raise FormatError(f"xz: {error}") from None
        if not decoder.eof or decoder.unused_data:
            raise FormatError("xz: the unit does not end with its stream")

    def _bounded_brotli(self, stored: Buffer, length: int) -> Iterator[bytes]:
        module = self._brotli
        if module is None:
            raise MissingError("brotli was not loaded")
        decoder = module.Decompressor()
        fed, left, idle = bytes(stored), length + 1, False
        try:
            while left > 0 and not decoder.is_finished() and not idle:
                piece: bytes = decoder.process(fed, output_buffer_limit=min(left, _STEP))
                idle = not piece and decoder.can_accept_more_data()  # it waits for bytes that there are not
                fed, left = b"", left - len(piece)
                yield piece
        except module.error as error:
            raise FormatError(f"brotli: {error}") from None
        if not decoder.is_finished():
            raise FormatError("brotli: the unit does not end with its stream")

    def _zstd(self, stored: Buffer, length: int, most: int, *, whole: bool = False) -> Buffer:
        decompressor = getattr(self._local, "zstd", None)
        try:
            if decompressor is None:  # a context is not to be shared between threads
                decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary, max_window_size=self._window)
                self._local.zstd = decompressor
            claimed = zstandard.frame_content_size(stored)
            if claimed == -1:
                with decompressor.stream_reader(stored) as reader:
                    data: bytes = reader.read(most + 1)
            elif length <= claimed <= most:  # the library allocates what the frame claims
                data = decompressor.decompress(stored, max_output_size=claimed, allow_extra_data=False)
            else:
                raise FormatError(f"a unit of {length} bytes is a zstd frame of {claimed}")
        except zstandard.ZstdError as error:
            raise FormatError(f"zstd: {error}") from None
        if not length <= len(data) <= most:
            raise FormatError(f"a unit of {length} bytes decodes to {len(data)} or more")
        return data if whole or len(data) == length else memoryview(data)[:length]
