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

NAMES = ("none", "zstd", "brotli", "xz", "gzip", "cacnk")

_MAGICS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip"}

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
        self._xz_memory = limits.xz_memory
        self._dictionary = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        # A window larger than any unit would only take memory.
        self._window = 1 << min(limits.zstd_window_log, max(limits.chunk_size - 1, 1 << 10).bit_length())
        self._local = threading.local()

    def decode(self, stored: Buffer, length: int) -> Buffer:
        """The unit's bytes, exactly `length` of them. Raises FormatError; never allocates more than `length`."""
        if self._name != "cacnk":
            return self._decode(self._name, stored, length)
        head = bytes(memoryview(stored)[:6])
        name = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), "none")
        try:
            return self._decode(name, stored, length)
        except FormatError:
            if len(stored) != length:
                raise
            return stored  # a plain chunk that begins as a compressed one does

    def _decode(self, name: str, stored: Buffer, length: int) -> Buffer:
        if name == "none":
            if len(stored) != length:
                raise FormatError(f"a unit of {length} bytes is stored in {len(stored)}")
            return stored
        if name == "zstd":
            return self._zstd(stored, length)
        decode = {"xz": self._xz, "gzip": self._gzip, "brotli": self._bounded_brotli}[name]
        data, end = bytearray(length), 0  # one buffer: a chunk of the greatest length must not be there twice
        for piece in decode(stored, length):
            if end + len(piece) > length:
                raise FormatError(f"a unit of {length} bytes decodes to more")
            data[end : end + len(piece)] = piece
            end += len(piece)
        if end != length:
            raise FormatError(f"a unit of {length} bytes decodes to {end}")
        return data

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

    def _gzip(self, stored: Buffer, length: int) -> Iterator[bytes]:
        import zlib

        decoder = zlib.decompressobj(wbits=31)
        fed, left = bytes(stored), length + 1
        try:
            while left > 0 and not decoder.eof:
                piece = decoder.decompress(fed, min(left, _STEP))
                if not piece and not decoder.unconsumed_tail:
                    break  # it waits for bytes that there are not
                fed, left = decoder.unconsumed_tail, left - len(piece)
                yield piece
        except zlib.error as error:
            raise FormatError(f"gzip: {error}") from None
        if not decoder.eof or decoder.unused_data:
            raise FormatError("gzip: the unit does not end with its stream")

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

    def _zstd(self, stored: Buffer, length: int) -> Buffer:
        decompressor = getattr(self._local, "zstd", None)
        try:
            if decompressor is None:  # a context is not to be shared between threads
                decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary, max_window_size=self._window)
                self._local.zstd = decompressor
            claimed = zstandard.frame_content_size(stored)
            if claimed == -1:
                with decompressor.stream_reader(stored) as reader:
                    data: bytes = reader.read(length + 1)
            elif claimed == length:  # the library allocates what the frame claims
                data = decompressor.decompress(stored, max_output_size=length, allow_extra_data=False)
            else:
                raise FormatError(f"a unit of {length} bytes is a zstd frame of {claimed}")
        except zstandard.ZstdError as error:
            raise FormatError(f"zstd: {error}") from None
        if len(data) != length:
            raise FormatError(f"a unit of {length} bytes decodes to {len(data)} or more")
        return data
