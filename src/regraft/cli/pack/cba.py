# SPDX-License-Identifier: Apache-2.0
"""`regraft pack cba`: make a bita archive."""

from __future__ import annotations

import click

from regraft.cli._options import Size, examples, json_option, placement_options, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._verity import ROOT, SALT, TREE, hash_tree


@click.command(
    epilog=examples(
        "regraft pack cba rootfs.ext4 -o rootfs.cba",
        "regraft pack cba rootfs.ext4 -o rootfs.cba --layout auto       cut where files begin, too",
        "regraft pack cba rootfs.ext4 -o rootfs.cba --chunker fixed --fixed-size 64KiB",
        "regraft pack cba rootfs.ext4 -o rootfs.cba --compression zstd --compression-level 19   not for stock bita",
    )
)
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The .cba file to write.")
@click.option(
    "--chunker",
    "--hash-chunking",
    "chunker",
    type=click.Choice(["rollsum", "buzhash", "fixed"], case_sensitive=False),
    default="rollsum",
    show_default=True,
    help="Where to cut.",
)
@click.option("--avg-chunk-size", "average", type=Size(), default="64KiB", show_default=True)
@click.option("--min-chunk-size", "minimum", type=Size(), default="16KiB", show_default=True)
@click.option("--max-chunk-size", "maximum", type=Size(), default="16MiB", show_default=True)
@click.option(
    "--rolling-window-size", "window", type=Size(), default=None, help="Default: 64 for rollsum, 16 for buzhash."
)
@click.option("--fixed-size", type=Size(), default=None, help="Cut every so many bytes: --chunker fixed.")
@click.option(
    "--compression",
    type=click.Choice(["brotli", "zstd", "lzma", "none"]),
    default="brotli",
    show_default=True,
    help="bita as it is built by default reads brotli and none.",
)
@click.option("--compression-level", "level", type=click.IntRange(1, 22), default=6, show_default=True)
@click.option(
    "--hash-length", type=click.IntRange(4, 64), default=64, show_default=True, help="Bytes kept of a chunk's digest."
)
@click.option("--metadata-value", type=(str, str), multiple=True, metavar="KEY VALUE", help="Repeatable.")
@click.option(
    "--metadata-file",
    type=(str, click.Path(exists=True, dir_okay=False)),
    multiple=True,
    metavar="KEY PATH",
    help="The same with the content of a file. Repeatable.",
)
@placement_options
@click.option(
    "--verity", is_flag=True, help="Put a dm-verity hash tree into the metadata, for `regraft mount --verity`."
)
@click.option("--verity-salt", metavar="HEX", help="Salt of the tree; default: derived from the image. `-`: none.")
@workers_option
@progress_option
@json_option
def command(
    image: str, output: str, chunker: str, average: int, minimum: int, maximum: int, window: int | None,
    fixed_size: int | None, compression: str, level: int, hash_length: int,
    metadata_value: tuple[tuple[str, str], ...], metadata_file: tuple[tuple[str, str], ...],
    align: int | None, layout: str, verity: bool, verity_salt: str | None, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a bita archive of IMAGE, with exactly the chunks that `bita compress` makes of it.

    Options are those of bita, and so are their defaults.
    """
    from regraft.build import cba as packer
    from regraft.cli._layout import say_layout
    from regraft.cli._progress import meter
    from regraft.engine.files import open_source, replacing
    from regraft.formats.chunk_rules import Placement
    from regraft.limits import DEFAULT

    if verity_salt is not None and not verity:
        raise click.UsageError("--verity-salt belongs to --verity")
    tree = hash_tree(image, verity_salt) if verity else {}
    options = packer.Options(
        chunker="fixed" if fixed_size is not None else chunker,
        average=average if fixed_size is None else fixed_size,
        minimum=minimum,
        maximum=maximum,
        window=window or 0,
        compression=compression,
        level=level,
        hash_length=hash_length,
        metadata={
            **{key: value.encode() for key, value in metadata_value},
            **{key: _content(path) for key, path in metadata_file},
            **tree,
        },
        workers=workers,
        placement=Placement(align or 1, layout == "auto"),
    )
    options.check(DEFAULT)
    for words in options.warnings():
        say(f"warning: {words}")
    medium = open_source(image)
    try:
        say_layout(medium, options.placement)
        with replacing(output) as out, meter(progress) as shown:
            header = packer.pack(medium, out, options, progress=shown)
    finally:
        medium.close()
    total = header.end
    facts = {
        "file": output,
        "image_size": header.image_size,
        "size": total,
        "header_size": header.size,
        "chunks": len(header.order),
        "unique_chunks": len(header),
        "chunker": header.rule,
        "header_digest": f"blake2b512:{header.checksum.hex()}",
        "warnings": options.warnings(),
    }
    if verity:
        facts["verity"] = {"root_hash": tree[ROOT].decode(), "salt": tree[SALT].decode(), "tree_size": len(tree[TREE])}
    if as_json:
        emit_json("pack", facts)
    else:
        part = f" ({total / header.image_size:.1%})" if header.image_size else ""
        chunks = f"{len(header.order)} chunks, {len(header)} of them different"
        say(f"{output}: {chunks}, {size(header.image_size)} in {size(total)}{part}")
        if verity:
            say(f"root hash: {tree[ROOT].decode()}")


def _content(path: str) -> bytes:
    from regraft.engine.files import open_source
    from regraft.engine.medium import read_all
    from regraft.limits import DEFAULT

    source = open_source(path)
    try:
        return read_all(source, DEFAULT.header_size)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    finally:
        source.close()
