# SPDX-License-Identifier: Apache-2.0
"""`regraft convert`: a chunked artifact in another format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.errors import UsageError
from regraft.formats import cba, chunk_rules, zchunk

if TYPE_CHECKING:
    from regraft.cli._artifact import Artifact, Header
    from regraft.engine.medium import Medium
    from regraft.engine.progress import Progress


@click.command(
    epilog=examples(
        "regraft convert rootfs.zck -o rootfs.cba --compression brotli    for stock bita",
        "regraft convert https://host/rootfs.cba -o rootfs.zck",
        "regraft convert rootfs.cba -o rootfs.zck --rechunk                so that stock SWUpdate finds its chunks",
    )
)
@click.argument("file")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option(
    "-f", "--format", "kind", type=click.Choice(["zck", "cba"]), default=None, help="Default: by the output's name."
)
@click.option(
    "--compression",
    type=click.Choice(["brotli", "zstd", "lzma", "none"]),
    default=None,
    help="Default: that of FILE where the format has it, so that stored bytes stay as they are.",
)
@click.option("--compression-level", "level", type=click.IntRange(1, 22), default=None, help="Default: as in pack.")
@click.option("--rechunk", is_flag=True, help="Cut the image anew, as pack does by default.")
@network_options
@workers_option
@progress_option
@json_option
def command(
    file: str, output: str, kind: str | None, compression: str | None, level: int | None, rechunk: bool,
    network: Network, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a zchunk file or bita archive of FILE, a zchunk file or bita archive (a path or URL).

    The cuts stay, and with them what a device can reuse; chunks are compressed anew only if the codec changes. Every
    byte is verified on the way.
    """
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.engine.files import replacing

    kind = kind or {".zck": "zck", ".cba": "cba"}.get(os.path.splitext(output)[1])
    if kind is None:
        raise UsageError(f"{output}: of which format?", cure="give it with -f")
    if not is_url(file) and os.path.exists(output) and os.path.samefile(file, output):
        raise UsageError(f"{output} is what is to be converted", cure="write another file")
    wish = _Wish(compression, level, workers, rechunk)
    with meter(progress) as shown, open_artifact(file, network) as artifact, replacing(output) as out:
        header, reused = (_to_zck if kind == "zck" else _to_cba)(artifact, out, wish, shown)
    facts = {
        "file": output,
        "format": kind,
        "image_size": header.image_size,
        "size": header.end,
        "chunks": _count(header),
        "chunks_as_stored": reused,
        "chunker": header.rule,
    }
    if as_json:
        emit_json("convert", facts)
    else:
        kept = "cut anew" if rechunk else f"{reused} of them as they were stored"
        say(f"{output}: {_count(header)} chunks, {kept}, {size(header.image_size)} in {size(header.end)}")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for. compression: None for that of the source."""

    compression: str | None
    level: int | None
    workers: int
    rechunk: bool

    def codec(self, header: Header, known: tuple[str, ...], otherwise: str) -> str:
        """The target's compression: its own name for the source's codec, if it has it."""
        return self.compression or (header.compression if header.compression in known else otherwise)


def _count(header: Header) -> int:
    """Chunks of the image."""
    return len(header) - 1 if isinstance(header, zchunk.Header) else len(header.order)


def _to_zck(artifact: Artifact, out: Medium, wish: _Wish, progress: Progress) -> tuple[Header, int]:
    """Write a zchunk file: its header, and how many chunks are stored as they were."""
    from regraft.build import convert
    from regraft.build import zchunk as builder

    compression = wish.codec(artifact.header, ("zstd", "none"), "zstd")
    options = builder.Options(compression=compression, level=wish.level or builder.LEVEL, workers=wish.workers)
    if wish.rechunk:
        with convert.unpacked(artifact.recipe, [artifact.blob], workers=wish.workers, progress=progress) as image:
            return builder.pack(image, out, options, progress=progress), 0
    chunks = convert.Chunks(
        artifact.recipe, [artifact.blob], codec=compression, workers=wish.workers,
        progress=progress,
    )  # fmt: skip
    if chunks.label != zchunk.CHUNKER:
        say("warning: stock SWUpdate and libzck cut a plain seed by zchunk's rule, and find few of these chunks in it")
    return builder.build(chunks, out, options), chunks.reused


def _to_cba(artifact: Artifact, out: Medium, wish: _Wish, progress: Progress) -> tuple[Header, int]:
    """Write a bita archive: its header, and how many chunks are stored as they were."""
    from regraft.build import cba as builder
    from regraft.build import convert

    before = artifact.header
    compression = wish.codec(before, cba.COMPRESSIONS, "brotli")
    same = isinstance(before, cba.Header) and before.compression == compression
    options = builder.Options(
        compression=compression,
        level=wish.level or (before.level if same and isinstance(before, cba.Header) else 0) or builder.LEVEL,
        metadata={key: value for key, value in before.metadata if key != chunk_rules.KEY}
        if isinstance(before, cba.Header)
        else {},
        workers=wish.workers,
    )
    for words in options.warnings():
        say(f"warning: {words}")
    if wish.rechunk:
        with convert.unpacked(artifact.recipe, [artifact.blob], workers=wish.workers, progress=progress) as image:
            return builder.pack(image, out, options, progress=progress), 0
    codec = {"lzma": "xz"}.get(options.compression, options.compression)
    chunks = convert.Chunks(artifact.recipe, [artifact.blob], codec=codec, workers=wish.workers, progress=progress)
    rule = chunk_rules.split(chunks.label)
    parameters = cba.Parameters.of(rule[0] if rule else chunks.label)
    if parameters.label != chunks.label:
        say("warning: bita cuts a seed by a rule of its own, and finds few of these chunks in it")
    return builder.build(chunks, out, options, parameters=parameters), chunks.reused
