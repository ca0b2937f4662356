# SPDX-License-Identifier: Apache-2.0
"""`regraft pack caibx`: make a casync index and fill a store."""

from __future__ import annotations

import os
from contextlib import nullcontext

import click

from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size


@click.command(
    epilog=examples(
        "regraft pack caibx rootfs.ext4 -o rootfs.caibx                           chunks go to default.castr beside it",
        "regraft pack caibx rootfs.ext4 -o rootfs.caibx --store /srv/all.castr    which other images may share",
        "regraft pack caibx rootfs.ext4 -o rootfs.caibx --chunk-size 4K:16K:64K --digest sha256",
    )
)
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The .caibx file to write.")
@click.option(
    "--store", type=click.Path(file_okay=False), default=None, metavar="DIR",
    help="The store that new chunks are added to.  [default: default.castr beside the index]",
)  # fmt: skip
@click.option("--no-store", is_flag=True, help="Only write the index.")
@click.option(
    "--chunk-size", default="64K", show_default=True, metavar="[MIN:]AVG[:MAX]",
    help="An average, or all three; an average alone means a quarter and four times of it.",
)  # fmt: skip
@click.option("--digest", type=click.Choice(["sha512-256", "sha256"]), default="sha512-256", show_default=True)
@click.option(
    "--compression", type=click.Choice(["zstd", "xz", "gzip", "none"]), default="zstd", show_default=True,
    help="Of new chunks.",
)  # fmt: skip
@click.option("--level", type=click.IntRange(0, 22), default=None, help="Default: casync's, 3 for zstd, 6 for others.")
@workers_option
@progress_option
@json_option
def command(
    image: str, output: str, store: str | None, no_store: bool, chunk_size: str, digest: str, compression: str,
    level: int | None, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a casync index of IMAGE, byte for byte that of `casync make`, and add its chunks to a store.

    Chunks that the store has already are not written again, however they are compressed.
    """
    from regraft.build import caibx as packer
    from regraft.cli._progress import meter
    from regraft.engine.chunkstores import LocalStore
    from regraft.engine.files import open_source, replacing
    from regraft.errors import UsageError
    from regraft.formats.caibx import DEFAULT_STORE
    from regraft.limits import DEFAULT

    if no_store and store is not None:
        raise UsageError("--store and --no-store", cure="give one of them")
    options = packer.Options(
        sizes=packer.sizes_of(chunk_size),
        digest=packer.DIGESTS[digest],
        compression=compression,
        level=level,
        workers=workers,
    )
    options.check(DEFAULT)
    folder = store or os.path.join(os.path.dirname(output), DEFAULT_STORE)
    medium = open_source(image)
    try:
        store_of = None if no_store else LocalStore(folder)
        filled = packer.Store(store_of, options) if store_of else None
        adding = store_of.adding() if store_of else nullcontext()
        with adding, replacing(output) as out, meter(progress) as shown:
            made = packer.pack(medium, out, filled, options, progress=shown)
    finally:
        medium.close()
    header = made.header
    facts = {
        "file": output,
        "image_size": header.image_size,
        "image_digest": f"{options.digest.label}:{made.digest.hex()}",
        "size": header.size,
        "chunks": len(header),
        "store": None if filled is None else folder,
        "chunks_written": filled.written if filled else 0,
        "bytes_written": filled.written_bytes if filled else 0,
    }
    if as_json:
        emit_json("pack", facts)
    else:
        added = f"; {filled.written} new ones of {size(filled.written_bytes)} to {folder}" if filled else ""
        say(f"{output}: {len(header)} chunks, {size(header.image_size)}{added}")
