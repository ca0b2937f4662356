# SPDX-License-Identifier: Apache-2.0
"""zstd compression by a libzstd of the user's choice, e.g. the very one that `zck` links, for byte-identical files.

zstd does not promise the same output from two of its versions; only the same library gives the same bytes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_void_p
from typing import Any

from regraft.errors import MissingError, RegraftError
from regraft.model.buffers import Buffer

_LEVEL, _STRATEGY = 100, 107  # ZSTD_cParameter, zstd.h


class Library:
    """A loaded libzstd. name: "system", or a path of a shared library."""

    def __init__(self, name: str) -> None:
        path = ctypes.util.find_library("zstd") if name == "system" else name
        try:
            if path is None:
                raise OSError("no libzstd is installed")
            self._library = ctypes.CDLL(path)
            signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
                "ZSTD_versionString": (c_char_p, ()),
                "ZSTD_createCCtx": (c_void_p, ()),
                "ZSTD_freeCCtx": (c_size_t, (c_void_p,)),
                "ZSTD_CCtx_setParameter": (c_size_t, (c_void_p, c_int, c_int)),
                "ZSTD_CCtx_loadDictionary": (c_size_t, (c_void_p, c_char_p, c_size_t)),
                "ZSTD_compressBound": (c_size_t, (c_size_t,)),
                "ZSTD_compress2": (c_size_t, (c_void_p, c_void_p, c_size_t, POINTER(ctypes.c_char), c_size_t)),
                "ZSTD_isError": (c_uint, (c_size_t,)),
                "ZSTD_getErrorName": (c_char_p, (c_size_t,)),
            }
            for function, (result, arguments) in signatures.items():
                getattr(self._library, function).restype = result
                getattr(self._library, function).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise MissingError(
                f"libzstd {name!r}: {error}", cure="leave --libzstd out, or name a libzstd 1.4 or later"
            ) from None

    @property
    def version(self) -> str:
        text: bytes = self._library.ZSTD_versionString()
        return text.decode()

    def compressor(self, level: int, strategy: int, dictionary: bytes | None) -> Compressor:
        """A context for one thread."""
        return Compressor(self, level, strategy, dictionary)

    def call(self, function: str, *arguments: object) -> int:
        """Call and check for an error. ctypes releases the GIL meanwhile."""
        result: int = getattr(self._library, function)(*arguments)
        if self._library.ZSTD_isError(result):
            raise RegraftError(f"{function}: {self._library.ZSTD_getErrorName(result).decode()}")
        return result

    def new_context(self) -> int:
        context = self._library.ZSTD_createCCtx()
        if not context:
            raise RegraftError("ZSTD_createCCtx: no memory")
        return int(context)

    def free_context(self, context: int) -> None:
        self._library.ZSTD_freeCCtx(context)


class Compressor:
    """One compression context. Not to be shared between threads."""

    def __init__(self, library: Library, level: int, strategy: int, dictionary: bytes | None) -> None:
        self._library = library
        self._context = library.new_context()
        library.call("ZSTD_CCtx_setParameter", self._context, _LEVEL, level)
        library.call("ZSTD_CCtx_setParameter", self._context, _STRATEGY, strategy)
        if dictionary:
            library.call("ZSTD_CCtx_loadDictionary", self._context, dictionary, len(dictionary))

    def compress(self, data: Buffer) -> bytes:
        bound = self._library.call("ZSTD_compressBound", len(data))
        out = ctypes.create_string_buffer(bound)
        # The chunker's buffer is writable, so its memory is passed without a copy.
        source = (ctypes.c_char * len(data)).from_buffer(data if not isinstance(data, bytes) else bytearray(data))
        count = self._library.call("ZSTD_compress2", self._context, out, bound, source, len(data))
        return ctypes.string_at(out, count)

    def __del__(self) -> None:
        if getattr(self, "_context", 0):
            self._library.free_context(self._context)
