# SPDX-License-Identifier: Apache-2.0
"""`regraft store verify`: is everything there, and as it was?"""

from __future__ import annotations

from dataclasses import asdict

import click

from regraft.cli._options import examples, json_option, progress_option, workers_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli._store import opened, store_argument


@click.command(epilog=examples("regraft store verify /data/images", "regraft store verify /data/images --full --json"))
@store_argument
@click.option("--full", is_flag=True, help="Read and hash every chunk, and every image whose digest is known.")
@click.option("--no-record", is_flag=True, help="Leave damaged chunks in the index.")
@workers_option
@progress_option
@json_option
def command(store: str, full: bool, no_record: bool, workers: int, progress: str, as_json: bool) -> None:
    """Verify STORE: descriptions, indexes, the sizes of packs, and that each image has all of its chunks.

    Ends with status 60 if an image is damaged. What --full finds damaged counts as missing from then on, so that `store
    repair` fetches it.
    """
    from regraft.errors import StateError
    from regraft.stores.verify import verify

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
