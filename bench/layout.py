# SPDX-License-Identifier: Apache-2.0
"""What a device fetches of the new image with the old one as seed, when chunks follow the layout of files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from material import REGRAFT, Material
from process import run
from rows import Row, at_most, scratch

#: Cut by content alone, the same with chunks half as long (about as many as with layout), and with layout.
_WAYS = {
    "plain": (),
    "shorter": ("--avg-chunk-size", "32KiB", "--min-chunk-size", "8KiB"),
    "layout": ("--layout", "auto"),
}


def layout(material: Material, _runs: int) -> Iterator[Row]:
    """Bytes, not seconds: one run tells all. ext4, and squashfs and erofs where the corpus has them."""
    for kind in ("ext4", "squashfs", "erofs"):
        old, new = material.old.with_suffix(f".{kind}"), material.new.with_suffix(f".{kind}")
        if not old.exists() or not new.exists():
            continue
        with scratch() as folder:
            found = {name: _fetched(folder / f"{name}.cba", old, new, options) for name, options in _WAYS.items()}
        size, (total, image, chunks) = new.stat().st_size, found["layout"]
        yield at_most(
            f"layout-{kind}",
            f"{kind} of {size / 1e6:.0f} MB, header and chunks to fetch: pack cba --layout auto, against --layout none",
            f"{total / 1e6:.1f} MB, of the image {image / 1e6:.1f} MB are new, {chunks} chunks",
            "; ".join(
                f"{name} {found[name][0] / 1e6:.1f} MB, {found[name][1] / 1e6:.1f} MB, {found[name][2]} chunks"
                for name in ("plain", "shorter")
            ),
            total / found["plain"][0],
            0.95,
        )


def _fetched(archive: Path, old: Path, new: Path, options: tuple[str, ...]) -> tuple[int, int, int]:
    """(bytes of header and chunks to fetch, bytes of the image they make, chunks of the image)."""
    fixed = ("--compression", "zstd", "--compression-level", "9", "--progress", "none")
    run([REGRAFT, "pack", "cba", new, "-o", archive, *fixed, *options])
    told = json.loads(run([REGRAFT, "inspect", archive, "--json"]).output)
    plan = json.loads(run([REGRAFT, "plan", archive, "--seed", old, "--json", "--progress", "none"]).output)
    fresh = plan["image"] - plan["reused"] - plan["zeros"]
    return told["header_size"] + plan["fetch"], fresh, told["chunk_count"]
