# SPDX-License-Identifier: Apache-2.0
"""`regraft delta`: make a pairwise delta."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from regraft.cli._options import Size, examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.errors import UsageError

if TYPE_CHECKING:
    from regraft.build.android_cow import Made

FORMATS = ("dm-update", "cow")


@click.command(
    epilog=examples(
        "regraft delta old.img new.img -f dm-update -o diff.img",
        "regraft delta old.img new.img -f dm-update -a lz4 --block-size 4Ki --chunk-size 128Ki -o diff.img",
        "regraft delta old.img new.img -f cow --version 2 -a gz -o system.cow",
    )
)
@click.argument("old", type=click.Path(exists=True))
@click.argument("new", type=click.Path(exists=True))
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), required=True, help="Of the delta.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option("-a", "--algorithm", default=None, help="Compression; each format has its own.  [default: zstd]")
@click.option("--level", type=click.IntRange(1, 22), default=None, help="Of the compression.  [default: its best]")
@click.option("--block-size", type=Size(), default=None, help="Of what is compared.  [default: 4Ki]")
@click.option("--chunk-size", type=Size(), default=None, help="Of what is compressed at once.  [default: 64Ki]")
@click.option("--version", type=click.Choice(["2", "3"]), default="3", show_default=True, help="Of a COW file.")
@click.option("--xor/--no-xor", default=True, show_default=True, help="Whether a COW file may store differences.")
@workers_option
@progress_option
@json_option
def command(
    old: str, new: str, form: str, output: str, algorithm: str | None, level: int | None, block_size: int | None,
    chunk_size: int | None, version: str, xor: bool, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a delta that turns the image OLD into the image NEW, and a sidecar FILE.sidecar with all digests.

    dm-update stores changed blocks (none, deflate, lz4, zstd). Android's copy-on-write files, cow, also copy and xor
    (none, gz, brotli, lz4, zstd). The same images and options make the same bytes.
    """
    if form == "cow":
        make_cow(
            old, new, output, version=int(version), algorithm=algorithm or "zstd", level=level, xor=xor,
            block_size=block_size or 4096, chunk_size=chunk_size or 65536, workers=workers, progress=progress,
            as_json=as_json,
        )  # fmt: skip
        return
    make_dm_update(
        "delta", old, new, output, algorithm=algorithm or "zstd", level=level, block_size=block_size or 4096,
        chunk_size=chunk_size or 65536, sector=4096, workers=workers, progress=progress, as_json=as_json,
    )  # fmt: skip


def make_dm_update(
    kind: str, old: str, new: str, output: str, *, algorithm: str, level: int | None, block_size: int,
    chunk_size: int, sector: int, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Write the diff and its sidecar; say what they are."""
    from regraft.build import dm_update as maker
    from regraft.cli._progress import meter
    from regraft.engine.files import open_source, replacing
    from regraft.formats import sidecar as sidecars
    from regraft.limits import DEFAULT

    options = maker.Options(algorithm, level, block_size, chunk_size, sector, workers)
    options.check(DEFAULT)
    refuse_same(output, old, new)
    base, target = open_source(old), open_source(new)
    try:
        with replacing(output) as out, meter(progress) as shown:
            made = maker.make(base, target, out, options, progress=shown)
        with replacing(output + sidecars.SUFFIX) as out:
            out.write(0, sidecars.build(made.sidecar))
    finally:
        base.close()
        target.close()
    warnings = []
    if made.sidecar.target_size != made.sidecar.base_size:
        warnings.append("the images differ in size, which the diff itself cannot tell: keep the sidecar with it")
    if made.sidecar.target_size % block_size:
        warnings.append(f"the new image is no multiple of {block_size} bytes: a device under it must be")
    facts = {
        "file": output,
        "sidecar": output + sidecars.SUFFIX,
        "format": "dm-update",
        "base_size": made.sidecar.base_size,
        "image_size": made.sidecar.target_size,
        "size": made.size,
        "changed_blocks": len(made.diff),
        "block_size": block_size,
        "base_digest": str(made.sidecar.base),
        "image_digest": str(made.sidecar.target),
        "warnings": warnings,
    }
    report(kind, facts, as_json)


def make_cow(
    old: str, new: str, output: str, *, version: int, algorithm: str, level: int | None, xor: bool, block_size: int,
    chunk_size: int, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Write the COW file and its sidecar; say what they are."""
    from regraft.build import android_cow as maker
    from regraft.cli._progress import meter
    from regraft.engine.files import open_source, replacing
    from regraft.formats import sidecar as sidecars
    from regraft.limits import DEFAULT

    unit = chunk_size if version == 3 else block_size
    options = maker.Options(version, algorithm, level, block_size, unit, xor, workers=workers)
    options.check(DEFAULT)
    refuse_same(output, old, new)
    base, target = open_source(old), open_source(new)
    try:
        with replacing(output) as out, meter(progress) as shown:
            made = maker.make(base, target, out, options, progress=shown)
        with replacing(output + sidecars.SUFFIX) as out:
            out.write(0, sidecars.build(made.sidecar))
    finally:
        base.close()
        target.close()
    report("delta", cow_facts(output, made, block_size), as_json)


def cow_facts(output: str, made: Made, block_size: int) -> dict[str, object]:
    """What a COW file that was made holds."""
    from regraft.formats import sidecar as sidecars
    from regraft.formats.android_cow import CowKind

    ops = made.cow.ops
    counts = dict.fromkeys(CowKind, 0)
    for kind, factor in zip(ops.kind, ops.factor, strict=True):
        counts[CowKind(kind)] += 1 << factor
    return {
        "file": output,
        "sidecar": output + sidecars.SUFFIX,
        "format": f"cow {made.cow.header.version}",
        "base_size": made.sidecar.base_size,
        "image_size": made.sidecar.target_size,
        "size": made.size,
        "changed_blocks": sum(counts.values()),
        "copied": counts[CowKind.COPY],
        "replaced": counts[CowKind.REPLACE],
        "xored": counts[CowKind.XOR],
        "zeros": counts[CowKind.ZERO],
        "block_size": block_size,
        "base_digest": str(made.sidecar.base),
        "image_digest": str(made.sidecar.target),
        "warnings": ["snapuserd takes blocks of 4096 bytes only"] if block_size != 4096 else [],
    }


def refuse_same(output: str, *inputs: str) -> None:
    """Raise UsageError if the output is one of the inputs."""
    import os

    if os.path.exists(output) and any(os.path.samefile(output, path) for path in inputs):
        raise UsageError(f"{output} is one of the images", cure="write to another file")


def report(kind: str, facts: dict[str, object], as_json: bool) -> None:
    """What was made, as JSON or for a person."""
    for words in facts["warnings"]:  # type: ignore[attr-defined]
        say(f"warning: {words}")
    if as_json:
        emit_json(kind, facts)
        return
    image, made = int(str(facts["image_size"])), int(str(facts["size"]))
    part = f" ({made / image:.1%} of the image)" if image else ""
    say(f"{facts['file']}: {facts['changed_blocks']} changed blocks, {size(made)}{part}; {facts['sidecar']}")
