# SPDX-License-Identifier: Apache-2.0
"""`regraft store repair`: fetch again what an image lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli._store import opened, store_argument

if TYPE_CHECKING:
    from regraft.engine.progress import Progress
    from regraft.stores.repair import Outcome
    from regraft.stores.store import Store


@click.command(
    epilog=examples(
        "regraft store verify /data/images --full || regraft store repair /data/images v2 https://host/rootfs.cba",
        "regraft store repair /data/images v2 /media/usb/images https://host/rootfs.cba",
    )
)
@store_argument
@click.argument("name")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@network_options
@workers_option
@progress_option
@json_option
def command(
    store: str, name: str, sources: tuple[str, ...], network: Network, workers: int, progress: str, as_json: bool
) -> None:
    """Bring the chunks back that image NAME of STORE lacks.

    Each SOURCE is an artifact that has them (a path or URL: the one that was cloned, or a neighbour with the same kind
    of digests), or another store. They are tried in order, for what the ones before did not have.
    """
    from regraft.errors import RegraftError, StateError
    from regraft.stores.repair import missing_chunks

    repaired = fetched = 0
    with meter(progress) as shown, opened(store) as found:
        missing = len(missing_chunks(found, name))
        for source in sources:
            if repaired == missing:
                break
            try:
                outcome = _repair(found, name, source, network, workers, shown)
            except RegraftError as error:
                if source == sources[-1]:
                    raise
                say(f"{source}: {error}")
                continue
            repaired, fetched = repaired + outcome.repaired, fetched + outcome.fetched
        left = len(missing_chunks(found, name))
    if as_json:
        facts = {"image": f"{store}/{name}", "missing": missing, "left": left, "fetched": fetched}
        emit_json("store-repair", facts)
    if left:
        raise StateError(f"{store}/{name}: {left} of {missing} chunks are in none of the sources", cure="give another")
    if not as_json:
        say(f"{store}/{name}: {missing} chunks were missing, all are there now, {size(fetched)} fetched")


def _repair(store: Store, name: str, source: str, network: Network, workers: int, progress: Progress) -> Outcome:
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.stores.repair import chunks_in, missing_chunks, repair

    if not is_url(source) and os.path.isdir(source):
        with opened(source) as other, chunks_in(other, missing_chunks(store, name)) as (recipe, blobs):
            return repair(store, name, recipe, blobs, workers=workers, progress=progress)
    with open_artifact(source, network) as artifact:
        return repair(store, name, artifact.recipe, [artifact.blob], workers=workers, progress=progress)
