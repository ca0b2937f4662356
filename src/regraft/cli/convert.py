# SPDX-License-Identifier: Apache-2.0
"""`regraft convert`: a chunked artifact in another format, or an Android payload as a COW file."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.errors import UsageError
from regraft.formats import caibx, cba, chunk_rules, zchunk
from regraft.formats.caibx import DEFAULT_STORE
from regraft.limits import DEFAULT

if TYPE_CHECKING:
    from regraft.cli._artifact import Artifact, Words
    from regraft.engine.chunkstores import LocalStore
    from regraft.engine.medium import Medium
    from regraft.engine.progress import Progress


@click.command(
    epilog=examples(
        "regraft convert rootfs.zck -o rootfs.cba --compression brotli    for stock bita",
        "regraft convert https://host/rootfs.cba -o rootfs.zck",
        "regraft convert rootfs.cba -o rootfs.zck --rechunk                so that stock SWUpdate finds its chunks",
        "regraft convert payload.bin --partition system --base system.img -o system.cow",
    )
)
@click.argument("file")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option(
    "-f",
    "--format",
    "kind",
    type=click.Choice(["zck", "cba", "caibx", "cow"]),
    default=None,
    help="Default: by the output's name.",
)
@click.option(
    "--compression",
    type=click.Choice(["brotli", "zstd", "lzma", "xz", "gzip", "gz", "lz4", "none"]),
    default=None,
    help="Default: that of FILE where the format has it, so that stored bytes stay as they are.",
)
@click.option("--compression-level", "level", type=click.IntRange(1, 22), default=None, help="Default: as in pack.")
@click.option(
    "--store", default=None, help="Of a casync index: the folder of its chunks.  [default: default.castr beside it]"
)
@click.option("--rechunk", is_flag=True, help="Cut the image anew, as pack does by default.")
@click.option("--partition", default=None, help="Of a payload: which one becomes the COW file.")
@click.option("--base", type=click.Path(exists=True), default=None, help="Of a payload: what is in it now.")
@network_options
@workers_option
@progress_option
@json_option
def command(
    file: str, output: str, kind: str | None, compression: str | None, level: int | None, rechunk: bool,
    store: str | None, partition: str | None, base: str | None, network: Network, workers: int, progress: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Make a zchunk file, bita archive or casync index of FILE, any of these or an ihop description (a path or URL).

    The cuts stay, and with them what a device can reuse; chunks are compressed anew only if the codec changes. Every
    byte is verified on the way.

    If FILE is an update payload of Android (payload.bin), make the COW file of one of its partitions and a sidecar. The
    new image is made first and compared with the payload's digest; signatures are not looked at. Operations that need
    an encoder of the same bits (PUFFDIFF, ZUCCHINI, LZ4DIFF) are refused.
    """
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.engine.chunkstores import LocalStore
    from regraft.engine.files import replacing

    kind = kind or {".zck": "zck", ".cba": "cba", ".caibx": "caibx", ".cow": "cow"}.get(os.path.splitext(output)[1])
    if kind is None:
        raise UsageError(f"{output}: of which format?", cure="give it with -f")
    if kind == "cow":
        from regraft.cli._convert_payload import convert_payload

        if partition is None or base is None:
            raise UsageError("a COW file is made of a payload, with --partition and --base")
        convert_payload(file, partition, base, output, compression, level, workers, progress, as_json)
        return
    if partition is not None or base is not None or compression in ("gz", "lz4"):
        raise UsageError("--partition, --base, gz and lz4 are for COW files", cure="give -f cow")
    if not is_url(file) and os.path.exists(output) and os.path.samefile(file, output):
        raise UsageError(f"{output} is what is to be converted", cure="write another file")
    wish = _Wish(compression, level, workers, rechunk)
    filled = LocalStore(store or os.path.join(os.path.dirname(output), DEFAULT_STORE)) if kind == "caibx" else None
    with (
        meter(progress) as shown,
        open_artifact(file, network) as artifact,
        filled.adding() if filled else nullcontext(),
        replacing(output) as out,
    ):
        if filled is not None:
            made = _to_caibx(artifact, out, filled, wish, shown)
        else:
            made = (_to_zck if kind == "zck" else _to_cba)(artifact, out, wish, shown)
    facts = {"file": output, "format": kind, **asdict(made)}
    if as_json:
        emit_json("convert", facts)
    else:
        kept = "cut anew" if rechunk else f"{made.chunks_as_stored} of them as they were stored"
        say(f"{output}: {made.chunks} chunks, {kept}, {size(made.image_size)} in {size(made.size)}")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options ask for. compression: None for that of the source."""

    compression: str | None
    level: int | None
    workers: int
    rechunk: bool

    def codec(self, header: Words, known: tuple[str, ...], otherwise: str) -> str:
        """The target's compression: its own name for the source's codec, if it has it."""
        if self.compression is not None:
            if self.compression not in known:
                raise UsageError(f"--compression {self.compression}: this format has {', '.join(known)}")
            return self.compression
        before = getattr(header, "compression", otherwise)
        return before if before in known else otherwise


@dataclass(frozen=True, slots=True)
class _Made:
    """The result. size: of the file, in bytes; of a casync index with what was added to the store."""

    image_size: int
    size: int
    chunks: int
    chunks_as_stored: int
    chunker: str


def _to_zck(artifact: Artifact, out: Medium, wish: _Wish, progress: Progress) -> _Made:
    from regraft.build import convert
    from regraft.build import zchunk as builder

    compression = wish.codec(artifact.header, ("zstd", "none"), "zstd")
    options = builder.Options(compression=compression, level=wish.level or builder.LEVEL, workers=wish.workers)
    if wish.rechunk:
        with convert.unpacked(artifact.recipe, [artifact.blob], workers=wish.workers, progress=progress) as image:
            return _of_zck(builder.pack(image, out, options, progress=progress), 0)
    chunks = convert.Chunks(
        artifact.recipe, [artifact.blob], codec=compression, workers=wish.workers, progress=progress
    )
    if chunks.label != zchunk.CHUNKER:
        say("warning: stock SWUpdate and libzck cut a plain seed by zchunk's rule, and find few of these chunks in it")
    header = builder.build(chunks, out, options)
    return _of_zck(header, chunks.reused)


def _of_zck(header: zchunk.Header, reused: int) -> _Made:
    return _Made(header.image_size, header.end, len(header) - 1, reused, header.rule)


def _to_cba(artifact: Artifact, out: Medium, wish: _Wish, progress: Progress) -> _Made:
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
            return _of_cba(builder.pack(image, out, options, progress=progress), 0)
    codec = {"lzma": "xz"}.get(options.compression, options.compression)
    chunks = convert.Chunks(artifact.recipe, [artifact.blob], codec=codec, workers=wish.workers, progress=progress)
    rule = chunk_rules.split(chunks.label)
    parameters = cba.Parameters.of(rule[0] if rule else chunks.label)
    if parameters.label != chunks.label:
        say("warning: bita cuts a seed by a rule of its own, and finds few of these chunks in it")
    header = builder.build(chunks, out, options, parameters=parameters)
    return _of_cba(header, chunks.reused)


def _of_cba(header: cba.Header, reused: int) -> _Made:
    return _Made(header.image_size, header.end, len(header.order), reused, header.rule)


def _to_caibx(artifact: Artifact, out: Medium, filled: LocalStore, wish: _Wish, progress: Progress) -> _Made:
    from regraft.build import caibx as builder
    from regraft.build import convert

    options = builder.Options(
        compression=wish.codec(artifact.header, tuple(builder.LEVELS), "zstd"), level=wish.level, workers=wish.workers
    )
    options.check(DEFAULT)
    store = builder.Store(filled, options)
    if wish.rechunk:
        with convert.unpacked(artifact.recipe, [artifact.blob], workers=wish.workers, progress=progress) as image:
            header = builder.pack(image, out, store, options, progress=progress).header
    else:
        chunks = convert.Chunks(artifact.recipe, [artifact.blob], workers=wish.workers, progress=progress)
        if caibx.Sizes.of(chunks.label) is None:
            say("warning: casync cuts a seed by a rule of its own, and finds few of these chunks in it")
        header = builder.build(chunks, out, store, options).header
    return _Made(header.image_size, header.size + store.written_bytes, len(header), 0, header.sizes.label)
