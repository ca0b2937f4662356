# SPDX-License-Identifier: Apache-2.0
"""`regraft store verify`: is everything there, and as it was?"""

from __future__ import annotations

from dataclasses import asdict

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli._store import opened, store_argument
from regraft.errors import StateError, UsageError


@click.command(
    epilog=examples(
        "regraft store verify /data/images",
        "regraft store verify /data/images --full --json",
        "regraft store verify /srv/all.castr --repair-from https://host/all.castr",
    )
)
@store_argument
@click.option("--full", is_flag=True, help="Read and hash every chunk, and every image whose digest is known.")
@click.option("--no-record", is_flag=True, help="Leave damaged chunks in the index.")
@click.option("--repair-from", metavar="URL|DIR", help="Of a casync store: another one, for damaged chunks.")
@network_options
@workers_option
@progress_option
@json_option
def command(
    store: str, full: bool, no_record: bool, repair_from: str | None, network: Network, workers: int, progress: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Verify STORE: descriptions, indexes, the sizes of packs, and that each image has all of its chunks.

    Ends with status 60 if an image is damaged. What --full finds damaged counts as missing from then on, so that `store
    repair` fetches it.

    Of a casync store (.castr) every chunk is read and hashed, always.
    """
    from regraft.stores.store import holds_chunk_files
    from regraft.stores.verify import verify

    if holds_chunk_files(store):
        _verify_files(store, repair_from, network, workers, progress, as_json)
        return
    if repair_from is not None:
        raise UsageError(f"{store} is not a casync store", cure="use `regraft store repair`")
    with meter(progress) as shown, opened(store) as found:
        report = verify(found, full=full, record=not no_record, workers=workers, progress=shown)
    if as_json:
        emit_json("store-verification", asdict(report) | {"store": store, "full": full, "sound": report.sound})
    else:
        for note in report.notes:
            say(f"note: {note}")
        for name, what in report.damage.items():
            say(f"{name}: {what}")
    if not report.sound:
        raise StateError(
            f"{store}: {len(report.damage)} of {report.images} images are damaged",
            cure=f"fetch what is missing: regraft store repair {store} {next(iter(report.damage))} URL",
        )
    if not as_json:
        hashed = f", {size(report.hashed)} hashed" if full else ""
        say(f"{store}: {report.images} images and {report.chunks} chunks in {report.packs} packs are sound{hashed}")


def _verify_files(
    store: str, repair_from: str | None, network: Network, workers: int, progress: str, as_json: bool
) -> None:
    from contextlib import ExitStack

    from regraft.cli._stores import open_store_at
    from regraft.engine.chunkstores import LocalStore
    from regraft.stores.chunk_files import verify_files

    with meter(progress) as shown, ExitStack() as stack:
        source = None if repair_from is None else open_store_at(repair_from, network, stack)
        report = verify_files(LocalStore(store), source, workers=workers, progress=shown)
    left = [path for path in report.damaged if path not in report.repaired]
    if as_json:
        emit_json("store-verification", asdict(report) | {"store": store, "full": True, "sound": report.sound})
    else:
        for path in report.damaged:
            say(f"{store}/{path}: damaged" + (", repaired" if path in report.repaired else ""))
    if left:
        raise StateError(
            f"{store}: {len(left)} of {report.chunks} chunks are damaged",
            cure=f"regraft store verify {store} --repair-from another store; or remove them, and pack the image again",
        )
    if not as_json:
        say(f"{store}: {report.chunks} chunks are sound, {size(report.bytes)} hashed")
