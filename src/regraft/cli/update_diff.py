# SPDX-License-Identifier: Apache-2.0
"""`regraft update-diff`: make a diff for dm-update, as the tool of that name does."""

from __future__ import annotations

import click

from regraft.cli._options import Size, examples, json_option, progress_option, workers_option


@click.command(epilog=examples("regraft update-diff old.img new.img -o diff.img -a zstd"))
@click.argument("old", type=click.Path(exists=True))
@click.argument("new", type=click.Path(exists=True))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="The file to write.")
@click.option(
    "-a",
    "--algorithm",
    type=click.Choice(["none", "deflate", "lz4", "zstd"]),
    default="zstd",
    show_default=True,
    help="Compression; the kernel on the device needs it too.",
)
@click.option("--level", type=click.IntRange(1, 22), default=None, help="Of the compression.  [default: its best]")
@click.option("--block-size", type=Size(), default="4Ki", show_default=True, help="Of what is compared.")
@click.option("--chunk-size", type=Size(), default="64Ki", show_default=True, help="Of what is compressed at once.")
@click.option("--sector-size", type=Size(), default="4Ki", show_default=True, help="The file becomes a multiple of it.")
@workers_option
@progress_option
@json_option
def command(
    old: str, new: str, output: str, algorithm: str, level: int | None, block_size: int, chunk_size: int,
    sector_size: int, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make the dm-update diff that turns the image OLD into NEW; the same as `regraft delta -f dm-update`.

    Beside it lies FILE.sidecar with the sizes and digests of both images, which the diff does not tell.
    """
    from regraft.cli.delta import make_dm_update

    make_dm_update(
        "update-diff", old, new, output, algorithm=algorithm, level=level, block_size=block_size,
        chunk_size=chunk_size, sector=sector_size, workers=workers, progress=progress, as_json=as_json,
    )  # fmt: skip
