# SPDX-License-Identifier: Apache-2.0
"""`regraft unpack`: an image from a chunked artifact."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import (
    Places,
    examples,
    json_option,
    progress_option,
    seed_option,
    store_options,
    workers_option,
)
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.errors import UsageError


@click.command(
    epilog=examples(
        "regraft unpack rootfs.zck -o rootfs.ext4",
        "regraft unpack https://host/rootfs.zck -o /dev/mmcblk0p3 --seed /dev/mmcblk0p2",
        "regraft unpack https://host/rootfs.caibx -o /dev/mmcblk0p3 --store https://host/default.castr",
        "regraft unpack https://host/rootfs.zck -o - | ssh target dd of=/dev/mmcblk0p3",
    )
)
@click.argument("file")
@click.option("-o", "--output", required=True, help="Image file or block device to write; - for stdout, in order.")
@seed_option
@store_options
@network_options
@workers_option
@progress_option
@json_option
def command(
    file: str, output: str, seeds: tuple[str, ...], stores: Places, network: Network, workers: int,
    progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Rebuild the image of FILE, fetching only what no seed has.

    FILE is a zchunk file, a bita archive, a casync index or an ihop description: a path or URL; or an image of a chunk
    store, as STORE/NAME.
    Interrupted, the same command continues. The image is read back and compared before the command succeeds.
    """
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.cli._store import open_seeds
    from regraft.engine.apply import apply
    from regraft.engine.files import open_target
    from regraft.engine.match import match
    from regraft.engine.state import state_of
    from regraft.engine.stream import Streamer

    if not is_url(file) and os.path.exists(output) and os.path.exists(file) and os.path.samefile(file, output):
        raise UsageError(f"{output} is the artifact itself", cure="unpack to another file")
    with meter(progress) as shown, open_artifact(file, network, stores) as artifact, ExitStack() as held:
        recipe = artifact.recipe
        algorithm = recipe.matchable
        opened = open_seeds(seeds, algorithm, recipe.chunker, held, shown)
        if output == "-":
            plan = match(recipe, [(seed.medium.name, seed.index) for seed in opened])
            media = [seed.medium for seed in opened]
            streamer = Streamer(plan, media, [artifact.blob], workers=workers, progress=shown)
            for piece in streamer.pieces():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            fetched = streamer.fetched
        else:
            target = open_target(output)
            try:
                outcome = apply(
                    recipe, opened, [artifact.blob], target, state=state_of(output), workers=workers, progress=shown
                )
            finally:
                target.close()
            fetched = outcome.fetched
        wire = artifact.wire()
    facts = {"image": output, "size": recipe.size, "fetched": fetched, "wire": wire}
    if as_json and output != "-":
        emit_json("unpack", facts)
    else:
        say(f"{output}: {size(recipe.size)}, {size(fetched)} of it taken from {file}")
