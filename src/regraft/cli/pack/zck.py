# SPDX-License-Identifier: Apache-2.0
"""`regraft pack zck`: make a zchunk file."""

from __future__ import annotations

from typing import Any

import click

from regraft.cli._options import examples, json_option, placement_options, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli._verity import ROOT, SALT, TREE, hash_tree
from regraft.formats import zchunk
from regraft.model import Algorithm

_DIGESTS = [algorithm.label for algorithm in zchunk.ALGORITHMS]


@click.command(
    epilog=examples(
        "regraft pack zck rootfs.ext4 -o rootfs.zck",
        "regraft pack zck rootfs.ext4 -o rootfs.zck --layout auto       cut where files begin, too",
        "regraft pack zck rootfs.ext4 -o rootfs.zck --libzstd system    byte-identical to `zck -u` of this machine",
    )
)
@click.argument("image", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The .zck file to write.")
@click.option(
    "-h",
    "--chunk-hash-type",
    type=click.Choice(_DIGESTS),
    default="sha256",
    show_default=True,
    help="Digest of chunks. SWUpdate needs sha256.",
)
@click.option(
    "--digest", type=click.Choice(_DIGESTS), default="sha256", show_default=True, help="Digest of header and body."
)
@click.option(
    "-u/-U",
    "--uncompressed/--no-uncompressed",
    default=True,
    show_default=True,
    help="Store digests of uncompressed chunks, so that a plain image can be a seed.",
)
@click.option(
    "--compression-format", "compression", type=click.Choice(["zstd", "none"]), default="zstd", show_default=True
)
@click.option("--level", type=click.IntRange(1, 22), default=9, show_default=True, help="zstd level; 9 is zck's.")
@click.option("-D", "--dict", "dictionary", type=click.Path(exists=True, dir_okay=False), help="zstd dictionary.")
@click.option(
    "--libzstd", default="", metavar="system|PATH", help="Compress with this libzstd instead of the built-in one."
)
@placement_options
@click.option("--verity", is_flag=True, help="Put a dm-verity hash tree into the header, for `regraft mount --verity`.")
@click.option("--verity-salt", metavar="HEX", help="Salt of the tree; default: derived from the image. `-`: none.")
@workers_option
@progress_option
@json_option
def command(
    image: str, output: str, chunk_hash_type: str, digest: str, uncompressed: bool, compression: str, level: int,
    dictionary: str | None, libzstd: str, align: int | None, layout: str, verity: bool, verity_salt: str | None,
    workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a zchunk file of IMAGE, with exactly the chunks that `zck` makes.

    The defaults are what SWUpdate's delta handler needs: those of `zck -u --chunk-hash-type sha256`.
    """
    from regraft.build import zchunk as packer
    from regraft.cli._layout import say_layout
    from regraft.engine.files import open_source, replacing
    from regraft.engine.medium import read_all
    from regraft.formats.chunk_rules import Placement
    from regraft.limits import DEFAULT

    if verity_salt is not None and not verity:
        raise click.UsageError("--verity-salt belongs to --verity")
    tree = hash_tree(image, verity_salt) if verity else {}
    trained = b""
    if dictionary:
        source = open_source(dictionary)
        try:
            trained = read_all(source, DEFAULT.dictionary_size)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        finally:
            source.close()
    options = packer.Options(
        digest=Algorithm.named(digest),
        chunk_digest=Algorithm.named(chunk_hash_type),
        uncompressed_source=uncompressed,
        compression=compression,
        level=level,
        dictionary=trained,
        libzstd=libzstd,
        workers=workers,
        placement=Placement(align or 1, layout == "auto"),
        metadata=tree,
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
    total = header.size + header.body_size
    facts: dict[str, Any] = {
        "file": output,
        "image_size": header.image_size,
        "size": total,
        "header_size": header.size,
        "chunks": len(header) - 1,
        "chunker": header.rule,
        "header_digest": f"{header.algorithm.label}:{header.digest.hex()}",
    }
    if verity:
        facts["verity"] = {"root_hash": tree[ROOT].decode(), "salt": tree[SALT].decode(), "tree_size": len(tree[TREE])}
    if as_json:
        emit_json("pack", facts)
    else:
        part = f" ({total / header.image_size:.1%})" if header.image_size else ""
        say(f"{output}: {len(header) - 1} chunks, {size(header.image_size)} in {size(total)}{part}")
        if verity:
            say(f"root hash: {tree[ROOT].decode()}")
