# SPDX-License-Identifier: Apache-2.0
"""Any bytes as a stored unit. First two bytes: the announced length; third: whether there is a dictionary."""

from __future__ import annotations

import gzip
import lzma

import zstandard

from regraft.errors import RegraftError
from regraft.formats.codecs import Decoder

_WORDS = b"words that come again and again " * 8


def target(data: bytes) -> None:
    length, stored = int.from_bytes(data[:2], "little"), data[3:]
    dictionary = {0: None, 1: _WORDS}.get(data[2] if len(data) > 2 else 0, stored[:64])
    for name in ("none", "zstd", "gzip", "xz", "cacnk"):
        try:
            decoded = Decoder(name, dictionary=dictionary if name == "zstd" else None).decode(stored, length)
        except RegraftError:
            continue
        if len(decoded) != length:
            raise AssertionError(f"{len(decoded)} bytes, {length} were announced")


def seeds() -> list[bytes]:
    found = [b"\3\0\0abc"]
    content = _WORDS[:100] * 3
    for dictionary in (False, True):
        words = zstandard.ZstdCompressionDict(_WORDS, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if dictionary else None
        for size in (0, 1):
            parameters = zstandard.ZstdCompressionParameters(compression_level=3, write_content_size=size)
            frame = zstandard.ZstdCompressor(dict_data=words, compression_params=parameters).compress(content)
            found.append(len(content).to_bytes(2, "little") + bytes([dictionary]) + frame)
    found += [len(content).to_bytes(2, "little") + b"\0" + pack(content) for pack in (gzip.compress, lzma.compress)]
    found.append(b"\x00\x01\x02\x37\xa4\x30\xec" + bytes(range(80)))
    return found
