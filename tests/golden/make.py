# SPDX-License-Identifier: Apache-2.0
"""Makes the golden zchunk files of this version: `python tests/golden/make.py` writes those that are not there yet.

Existing files are never made anew: later versions must go on reading them.
"""

from __future__ import annotations

import random
from pathlib import Path

from regraft.build.zchunk import Options, pack
from regraft.model import Algorithm
from regraft.testing.memory import MemoryMedium

FOLDER = Path(__file__).parent


def image() -> bytes:
    """Compressible, with a run of zeros: a few chunks, a few KB when packed."""
    chance = random.Random(2026)
    words = [chance.randbytes(60) for _ in range(12)]
    return b"".join(chance.choices(words, k=1200)) + bytes(140_000) + b"end"


DICTIONARY = image()[:600]

KINDS = {
    "zstd-u-sha256": Options(),
    "zstd-sha512_128": Options(uncompressed_source=False, chunk_digest=Algorithm.SHA512_128),
    "zstd-sha1": Options(uncompressed_source=False, digest=Algorithm.SHA1, chunk_digest=Algorithm.SHA1),
    "zstd-u-sha512": Options(digest=Algorithm.SHA512, chunk_digest=Algorithm.SHA512),
    "zstd-u-dict": Options(dictionary=DICTIONARY),
    "zstd-dict": Options(dictionary=DICTIONARY, uncompressed_source=False),
}


def main() -> None:
    for name, options in [*KINDS.items(), ("none-u-sha256-empty", Options(compression="none"))]:
        path = FOLDER / f"{name}.zck"
        if not path.exists():
            out = MemoryMedium()
            pack(MemoryMedium(b"" if name.endswith("empty") else image()), out, options)
            path.write_bytes(out.content)


if __name__ == "__main__":
    main()
