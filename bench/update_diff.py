# SPDX-License-Identifier: Apache-2.0
"""A child of the benchmark: a diff for dm-update made in this process, or what no maker of it can do without.

update_diff.py make OLD NEW OUT      make the diff; level 19, chunks of 64 KiB
update_diff.py bound OLD NEW         read both images, then compress the changed blocks, in such chunks, on all cores
update_diff.py size OLD NEW          the changed blocks as one zstd stream of level 19

Prints seconds, processor seconds and bytes as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

BLOCK, CHUNK, LEVEL, STEP = 4096, 64 << 10, 19, 4 << 20


def make(old: Path, new: Path, out: Path) -> int:
    from regraft.build import dm_update
    from regraft.engine.files import open_source, open_target

    target = open_target(str(out))
    target.resize(0)
    return dm_update.make(open_source(str(old)), open_source(str(new)), target, dm_update.Options(level=LEVEL)).size


def changed(old: Path, new: Path) -> bytes:
    """The blocks of `new` that `old` has not in the same place, end to end."""
    found = []
    with old.open("rb") as before, new.open("rb") as after:
        while data := after.read(STEP):
            other = before.read(STEP)
            if data != other:
                pieces = range(0, len(data), BLOCK)
                found += [data[at : at + BLOCK] for at in pieces if data[at : at + BLOCK] != other[at : at + BLOCK]]
    return b"".join(found)


def read(path: Path) -> None:
    buffer = bytearray(STEP)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def bound(old: Path, new: Path, blocks: bytes) -> int:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(read, (old, new)))
        return sum(pool.map(compressed, chunks(blocks)))


def chunks(blocks: bytes) -> Iterator[bytes]:
    return (blocks[at : at + CHUNK] for at in range(0, len(blocks), CHUNK))


def compressed(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=LEVEL).compress(data))


def main() -> None:
    what, old, new = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    blocks = b"" if what == "make" else changed(old, new)
    began, spent = time.perf_counter(), time.process_time()
    if what == "make":
        size = make(old, new, Path(sys.argv[4]))
    else:
        size = compressed(blocks) if what == "size" else bound(old, new, blocks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    print(json.dumps({"seconds": seconds, "cpu": cpu, "size": size, "changed": len(blocks)}))


if __name__ == "__main__":
    main()
