# SPDX-License-Identifier: Apache-2.0
"""`regraft clone`: an image into a chunk store."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import Places, examples, json_option, progress_option, store_options, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regraft.cli._artifact import Artifact
    from regraft.engine.seeds import Seed
    from regraft.stores.store import Store


@click.command(
    epilog=examples(
        "regraft clone https://host/rootfs.cba /data/images/v2",
        "regraft clone https://host/rootfs.cba /data/images/v2 --seed /dev/mmcblk0p2",
        "regraft clone https://host/rootfs.cba /data/images/v2 --dry-run --json | jq .fetch",
    )
)
@click.argument("what")
@click.argument("place", metavar="STORE/NAME")
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="PATH",
    help="More local bytes to reuse: a file, a block device, or an image of a chunk store as STORE/NAME. Repeatable.",
)
@click.option("-f", "--replace", is_flag=True, help="NAME may be another image now.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what it takes. Writes nothing.")
@store_options
@network_options
@workers_option
@progress_option
@json_option
def command(
    what: str, place: str, seeds: tuple[str, ...], replace: bool, dry_run: bool, stores: Places,
    network: Network, workers: int, progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Bring the image of WHAT into a chunk store, as NAME. WHAT is a zchunk file, a bita archive, a casync index, an
    ihop description, or the URL of one; or an image of another store.

    Only chunks that neither the store nor a seed has are fetched and written. The store is made if there is none.
    Interrupted, the same command continues.
    """
    from regraft.cli._artifact import open_artifact
    from regraft.cli._store import metadata_of, open_seeds, opened, without_secrets
    from regraft.stores.clone import clone
    from regraft.stores.names import split

    folder, name = split(place)
    with meter(progress) as shown, open_artifact(what, network, stores) as artifact, ExitStack() as held:
        recipe = artifact.recipe
        store = held.enter_context(opened(folder, create=not dry_run))
        media = open_seeds(seeds, recipe.matchable, recipe.chunker, held, shown)
        if dry_run:
            _forecast(store, name, artifact, media, replace, as_json)
            return
        outcome = clone(
            store,
            name,
            recipe,
            [artifact.blob],
            seeds=media,
            source=without_secrets(what),
            metadata=metadata_of(artifact),
            replace=replace,
            workers=workers,
            progress=shown,
        )
        wire = artifact.wire()
    facts = {
        "image": place,
        "size": outcome.size,
        "written": outcome.written,
        "present": outcome.present,
        "fetched": outcome.fetched,
        "wire": wire,
        "resumed": outcome.resumed,
        "unchanged": outcome.unchanged,
    }
    if as_json:
        emit_json("clone", facts)
    elif outcome.unchanged:
        say(f"{place}: {size(outcome.size)}, complete as it is")
    else:
        fetched = f"{size(outcome.written)} new in the store, {size(outcome.fetched)} taken from {what}"
        say(f"{place}: {size(outcome.size)}, {fetched}")


def _forecast(store: Store, name: str, artifact: Artifact, seeds: Sequence[Seed], replace: bool, as_json: bool) -> None:
    from regraft.engine.cost import forecast
    from regraft.engine.ranges import Link
    from regraft.stores.clone import plan

    looked = plan(store, name, artifact.recipe, seeds, replace=replace)
    cost = forecast(looked.plan, Link(20e6 / 8, 0.1), finished=looked.finished)
    facts = {
        "size": artifact.recipe.size,
        "present": looked.present,
        "missing": looked.missing,
        "from_seeds": cost.reused,
        "fetch": cost.fetch,
        "requests": cost.requests,
        "disk": looked.disk,
        "free": looked.free,
        "fits": looked.disk <= looked.free,
    }
    if as_json:
        emit_json("clone-plan", facts)
        return
    click.echo(
        "\n".join(
            (
                f"image           {size(artifact.recipe.size)}",
                f"in the store    {size(looked.present)} of it, {size(looked.missing)} are missing",
                f"from seeds      {size(cost.reused)}",
                f"to fetch        {size(cost.fetch)} in {cost.requests} requests",
                f"disk            {size(looked.disk)} of {size(looked.free)} that are free",
            )
        )
    )
