# SPDX-License-Identifier: Apache-2.0
"""The codecs in which units are stored: bytes to bytes, with every length known beforehand."""

from __future__ import annotations

import threading

import zstandard

from regraft.errors import FormatError, UnsupportedError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

NAMES = ("none", "zstd")


class Decoder:
    """Decodes units of one codec, from any thread.

    name: one of `NAMES`. dictionary: decoded bytes of the dictionary, if the units were made with one.
    """

    def __init__(self, name: str, *, dictionary: bytes | None = None, limits: Limits = DEFAULT) -> None:
        if name not in NAMES:
            raise UnsupportedError(f"codec {name!r}: regraft reads {', '.join(NAMES)}")
        self._name = name
        self._dictionary = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
        # A window larger than any unit would only take memory.
        self._window = 1 << min(limits.zstd_window_log, max(limits.chunk_size - 1, 1 << 10).bit_length())
        self._local = threading.local()

    def decode(self, stored: Buffer, length: int) -> Buffer:
        """The unit's bytes, exactly `length` of them. Raises FormatError; never allocates more than `length`."""
        if self._name == "none":
            if len(stored) != length:
                raise FormatError(f"a unit of {length} bytes is stored in {len(stored)}")
            return stored
        return self._zstd(stored, length)

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
