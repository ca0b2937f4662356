# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a stored unit. First two bytes: the announced length; third: whether there is a dictionary."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from contextlib import suppress

import brotli
import lz4.block
import zstandard

from regraft.errors import RegraftError
from regraft.formats.codecs import NAMES, Decoder

_WORDS = b"words that come again and again " * 8


def target(data: bytes) -> None:
    length, stored = int.from_bytes(data[:2], "little"), data[3:]
    dictionary = {0: None, 1: _WORDS}.get(data[2] if len(data) > 2 else 0, stored[:64])
    for name in NAMES if dictionary is None else ("none", "zstd"):
        for room in (0, 2 * length):
            try:
                decoded = Decoder(name, dictionary=dictionary).decode(stored, length, room=room)
            except RegraftError:
                continue
            if len(decoded) != length:
                raise AssertionError(f"{len(decoded)} bytes, {length} were announced")
        with suppress(RegraftError):
            assert len(Decoder(name, dictionary=dictionary).decode_all(stored, length)) <= length


def seeds() -> list[bytes]:
    found = [b"\3\0\0abc"]
    content = _WORDS[:100] * 3
    for dictionary in (False, True):
        words = zstandard.ZstdCompressionDict(_WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
        for size in (0, 1):
            parameters = zstandard.ZstdCompressionParameters(compression_level=3, write_content_size=size)
            frame = zstandard.ZstdCompressor(dict_data=words, compression_params=parameters).compress(content)
            found.append(len(content).to_bytes(2, "little") + bytes([dictionary]) + frame)
    raw = zlib.compressobj(wbits=-11)
    head = len(content).to_bytes(2, "little") + b"\0"
    found += [head + zlib.compress(content), head + raw.compress(content) + raw.flush(), head + bz2.compress(content)]
    found += [head + lzma.compress(content), head + brotli.compress(content)]
    found.append(head + lz4.block.compress(content, store_size=False))
    found.append(head + gzip.compress(content))
    found.append(b"\x00\x01\x02\x37\xa4\x30\xec" + bytes(range(80)))
    return found
