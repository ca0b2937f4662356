# SPDX-License-Identifier: Apache-2.0
"""The codecs in which units are stored: bytes to bytes, with every length known beforehand."""

from __future__ import annotations

import importlib
import threading
from types import ModuleType

import zstandard

from regraft.errors import FormatError, LimitError, MissingError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

NAMES = ("none", "zstd", "brotli", "xz")

#: Bytes by which brotli's decoder may overshoot what it is asked for.
_BROTLI_STEP = 1 << 18


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

    name: one of `NAMES`. dictionary: decoded bytes of the dictionary, if the units were made with one.
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
        self._window = 1 << limits.zstd_window_log
        self._local = threading.local()

    def decode(self, stored: Buffer, length: int) -> Buffer:
        """The unit's bytes, exactly `length` of them. Raises FormatError; never allocates more than `length`."""
        if self._name == "none":
            if len(stored) != length:
                raise FormatError(f"a unit of {length} bytes is stored in {len(stored)}")
            return stored
        if self._name == "zstd":
            return self._zstd(stored, length)
        data = self._bounded_brotli(stored, length) if self._brotli else self._xz(stored, length)
        if len(data) != length:
            raise FormatError(f"a unit of {length} bytes decodes to {len(data)} or more")
        return data

    def _xz(self, stored: Buffer, length: int) -> bytes:
        import lzma

        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=self._xz_memory)
        try:
            data = decoder.decompress(stored, length)
            if not decoder.eof:  # the end of the stream, or one byte too many
                data += decoder.decompress(b"", 1)
        except lzma.LZMAError as error:
            if "limit" in str(error):
                raise LimitError(f"xz: more than limits.xz_memory = {self._xz_memory} bytes to decode") from None
            raise FormatError(f"xz: {error}") from None
        except EOFError:
            raise FormatError("xz: the unit is cut off") from None
        if len(data) == length and (not decoder.eof or decoder.unused_data):
            raise FormatError("xz: the unit does not end with its stream")
        return data

    def _bounded_brotli(self, stored: Buffer, length: int) -> bytes:
        module = self._brotli
        if module is None:
            raise MissingError("brotli was not loaded")
        decoder = module.Decompressor()
        data = bytearray()
        try:
            piece = decoder.process(bytes(stored), output_buffer_limit=min(length, _BROTLI_STEP))
            while piece or not decoder.can_accept_more_data():
                data += piece
                if len(data) > length or decoder.is_finished():
                    break
                piece = decoder.process(b"", output_buffer_limit=min(length - len(data) or 1, _BROTLI_STEP))
        except module.error as error:
            raise FormatError(f"brotli: {error}") from None
        if len(data) <= length and not decoder.is_finished():
            raise FormatError("brotli: the unit is cut off")
        return bytes(data)

    def _zstd(self, stored: Buffer, length: int) -> Buffer:
        decompressor = getattr(self._local, "zstd", None)
        if decompressor is None:  # a context is not to be shared between threads
            decompressor = zstandard.ZstdDecompressor(dict_data=self._dictionary, max_window_size=self._window)
            self._local.zstd = decompressor
        try:
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
