# SPDX-License-Identifier: Apache-2.0
"""Makes the golden deltas of this version: `python tests/golden/make_deltas.py` writes those that are not there yet.

Existing files are never made anew: later versions must go on reading them.
"""

from __future__ import annotations

import random
from pathlib import Path

from regraft.build import android_cow, dm_update
from regraft.formats import sidecar
from regraft.testing.memory import MemoryMedium

FOLDER = Path(__file__).parent / "deltas"
BLOCK = 512


def images() -> tuple[bytes, bytes]:
    """Equal, changed, moved, swapped, zero and new blocks, and a new image that is a little longer."""
    chance = random.Random(2026)
    old = [chance.randbytes(BLOCK) for _ in range(40)]
    new = list(old)
    new[1], new[2], new[3] = old[2], old[3], old[1]
    new[5:9] = old[6:10]
    new[12] = bytes(BLOCK)
    new[15] = new[16] = b"the same words " * 34 + b"!!"
    new[20] = old[20][:-1] + b"?"
    new[39:] = [b"new " * (BLOCK // 4)] * 3
    return b"".join(old), b"".join(new)


DIFFS = {
    f"dm-update-{name}": dm_update.Options(name, block_size=BLOCK, chunk_size=4 * BLOCK, sector=512)
    for name in dm_update.COMPRESSIONS
}
_KINDS = ((2, "none", 0), (2, "gz", 8), (2, "lz4", 8), (3, "none", 0), (3, "zstd", 0), (3, "brotli", 0))
COWS = {
    f"cow{version}-{name}": android_cow.Options(version, name, None, BLOCK, 4 * BLOCK, cluster_ops=slots, scratch=0)
    for version, name, slots in _KINDS
}


def make(name: str) -> tuple[bytes, bytes]:
    """(the delta, its sidecar) as this version makes it."""
    old, new, out = *map(MemoryMedium, images()), MemoryMedium()
    if name in DIFFS:
        made = dm_update.make(old, new, out, DIFFS[name]).sidecar
    else:
        made = android_cow.make(old, new, out, COWS[name]).sidecar
    return bytes(out.content), sidecar.build(made)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in (*DIFFS, *COWS):
        path = FOLDER / name
        if not path.exists():
            delta, beside = make(name)
            path.write_bytes(delta)
            path.with_name(name + sidecar.SUFFIX).write_bytes(beside)


if __name__ == "__main__":
    main()
