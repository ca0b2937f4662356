# SPDX-License-Identifier: Apache-2.0
"""A child of the benchmark: reads of the new image before and while it is merged, in this process.

view.py FOLDER SIZE      half of SIZE bytes is unchanged, the rest in zstd units of 64 KiB

Prints as JSON: seconds for all unchanged bytes read by the view and from the base, seconds per read of 4 KiB of changed
areas and per unit decoded, and how long the slowest hundredth of such reads takes before and during the merge.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import zstandard

from regraft.engine.blobs import LocalBlob
from regraft.engine.files import FileDirectory, open_source, open_target
from regraft.engine.merge import Merge
from regraft.engine.merge_journal import open_journal
from regraft.engine.merge_view import MergeView
from regraft.engine.ranges import Range
from regraft.model import Algorithm, Blob, Codec, Digest, Kind, Op, OpTable, Plan, Recipe, Units

READ, ROW, UNIT, STEP = 4096, 16 << 10, 64 << 10, 128 << 10


def prepared(folder: Path, size: int) -> tuple[Merge, list[Range], LocalBlob]:
    """A merge that has not begun: the first half of the image stays, row by row."""
    chance = random.Random(3)
    words = [chance.randbytes(chance.randint(2, 8)).hex().encode() for _ in range(4096)]
    old = b"".join(chance.randbytes(1 << 20) for _ in range(size >> 20))
    table, units, stored = OpTable(Algorithm.SHA256), Units(None), bytearray()
    for at in range(0, size // 2, ROW):
        table.add(ROW, Algorithm.SHA256.of(old[at : at + ROW]), Op(Kind.COPY, at=at))
    ranges = []
    for _ in range(size // 2, size, UNIT):
        content = b" ".join(chance.choices(words, k=UNIT // 8))[:UNIT].ljust(UNIT)
        packed = zstandard.ZstdCompressor(level=3).compress(content)
        ranges.append(Range(len(stored), len(packed)))
        unit = units.add(blob=0, codec=0, offset=len(stored), stored=len(packed), length=UNIT, digest=None)
        stored += packed
        for within in range(0, UNIT, ROW):
            digest = Algorithm.SHA256.of(content[within : within + ROW])
            table.add(ROW, digest, Op(Kind.DATA, unit=unit, within=within))
    (folder / "base").write_bytes(old)
    (folder / "stored").write_bytes(stored)
    recipe = Recipe(table, units, (Blob("stored"),), (Codec("zstd"),))
    blob = LocalBlob(open_source(str(folder / "stored")))
    journal = open_journal(FileDirectory(str(folder)), "journal")
    base = open_target(str(folder / "base"))
    return Merge(Plan(recipe, table, ("base",)), base, [blob], journal, base_digest=Digest.of(old)), ranges, blob


def timed(read: Callable[[int, memoryview], int], places: list[int], length: int) -> list[float]:
    buffer, took = memoryview(bytearray(length)), []
    for place in places:
        began = time.perf_counter()
        read(place, buffer)
        took.append(time.perf_counter() - began)
    return took


def slowest_hundredth(took: list[float]) -> float:
    return sorted(took)[len(took) * 99 // 100]


def main() -> None:
    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    merge, ranges, blob = prepared(folder, size)
    merge.prepare()
    view, chance = MergeView(merge), random.Random(4)
    through, straight = [], []
    for _ in range(3):
        unchanged = list(range(0, size // 2, STEP))
        through.append(sum(timed(view.read_into, unchanged, STEP)))
        straight.append(sum(timed(merge.base.read_into, unchanged, STEP)))

    def decode(place: int, _: memoryview) -> int:
        ((_, packed),) = blob.fetch([ranges[(place - size // 2) // UNIT]])
        return len(zstandard.ZstdDecompressor().decompress(packed, max_output_size=UNIT))

    changed = [chance.randrange(size // 2, size, READ) for _ in range(4000)]
    reads, units = sorted(timed(view.read_into, changed, READ)), sorted(timed(decode, changed, READ))
    everywhere = [chance.randrange(0, size, READ) for _ in range(4000)]
    before = timed(view.read_into, everywhere, READ)
    during: list[float] = []
    working = Thread(target=merge.run)
    working.start()
    while working.is_alive():
        during += timed(view.read_into, everywhere[len(during) % 4000 :][:50], READ)
    working.join()
    told = {
        "view": min(through), "base": min(straight),
        "read": reads[len(reads) // 2], "unit": units[len(units) // 2],
        "before": slowest_hundredth(before), "during": slowest_hundredth(during), "reads": len(during),
    }  # fmt: skip
    print(json.dumps(told))


if __name__ == "__main__":
    main()
