# SPDX-License-Identifier: Apache-2.0
"""File systems: any bytes have a layout, with places in rising order within them, or a note why there is none.

The images in filesystems/ hold the same six files: made by mke2fs -d (ext4, ext2), mksquashfs -comp zstd -b 4096, and
mkfs.erofs with and without -zlz4.
"""

from __future__ import annotations

import lzma
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from regraft.formats.filesystems import layout
from regraft.limits import DEFAULT

LIMITS = replace(DEFAULT, layout_bytes=1 << 20, layout_cuts=2000)


def target(data: bytes) -> None:
    def read(offset: int, view: memoryview) -> None:
        view[:] = data[offset : offset + len(view)]

    found = layout(read, len(data), limits=LIMITS)
    assert found.kind or (found.note and not found.cuts)
    bounds = [0, *found.cuts, len(data)]
    assert not data or all(before < behind for before, behind in pairwise(bounds))


def seeds() -> list[bytes]:
    folder = Path(__file__).with_name("filesystems")
    return [lzma.decompress(path.read_bytes()) for path in sorted(folder.glob("*.img.xz"))]
