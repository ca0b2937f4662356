# SPDX-License-Identifier: Apache-2.0
"""`regraft convert`: a delta of one format from that of another."""

from __future__ import annotations

import click

from regraft.cli._options import Size, examples, json_option, progress_option, workers_option


@click.command(
    epilog=examples(
        "regraft convert payload.bin --partition system --base system-old.img -o system.cow",
        "regraft convert payload.bin --partition vendor --base vendor-old.img --version 2 -a gz -o vendor.cow",
    )
)
@click.argument("file", type=click.Path(exists=True))
@click.option("--partition", required=True, help="Which of the payload's.")
@click.option("--base", required=True, type=click.Path(exists=True), help="The image that is in the partition now.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The COW file to write.")
@click.option("--version", type=click.Choice(["2", "3"]), default="3", show_default=True, help="Of the COW file.")
@click.option(
    "-a",
    "--algorithm",
    type=click.Choice(["none", "gz", "brotli", "lz4", "zstd"]),
    default="zstd",
    show_default=True,
    help="Compression.",
)
@click.option("--level", type=click.IntRange(1, 22), default=None, help="Of the compression.  [default: its best]")
@click.option("--chunk-size", type=Size(), default="64Ki", show_default=True, help="Of what is compressed at once.")
@click.option("--xor/--no-xor", default=True, show_default=True, help="Whether differences may be stored.")
@workers_option
@progress_option
@json_option
def command(
    file: str, partition: str, base: str, output: str, version: str, algorithm: str, level: int | None,
    chunk_size: int, xor: bool, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make the COW file of one partition from FILE, an update payload of Android (payload.bin), and its sidecar.

    The new image is made first and compared with the payload's digest. Signatures are not looked at: verify the payload
    before. Operations that need a deflate or LZ4 encoder of the same bits (PUFFDIFF, ZUCCHINI, LZ4DIFF) are refused.
    """
    from regraft.build import android_cow
    from regraft.build.payload import to_cow
    from regraft.cli._progress import meter
    from regraft.cli.delta import cow_facts, refuse_same, report
    from regraft.engine.files import open_source, replacing
    from regraft.formats import sidecar as sidecars
    from regraft.limits import DEFAULT

    unit = chunk_size if version == "3" else 4096
    options = android_cow.Options(int(version), algorithm, level, 4096, unit, xor, workers=workers)
    options.check(DEFAULT)
    refuse_same(output, file, base)
    blobs, old = open_source(file), open_source(base)
    try:
        with replacing(output) as out, meter(progress) as shown:
            made = to_cow(blobs, partition, old, out, options, progress=shown)
        with replacing(output + sidecars.SUFFIX) as out:
            out.write(0, sidecars.build(made.sidecar))
    finally:
        old.close()
        blobs.close()
    report("convert", cow_facts(output, made, 4096), as_json)
