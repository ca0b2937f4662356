# SPDX-License-Identifier: Apache-2.0
"""`regraft store gc`: give back the space of what no image needs."""

from __future__ import annotations

from dataclasses import asdict

import click

from regraft.cli._options import examples, json_option, progress_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.cli._store import opened, store_argument


@click.command(epilog=examples("regraft store gc /data/images --dry-run", "regraft store gc /data/images"))
@store_argument
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be freed.")
@progress_option
@json_option
def command(store: str, dry_run: bool, progress: str, as_json: bool) -> None:
    """Drop the chunks of STORE that no image and no unfinished clone needs.

    Safe beside running clones and mounted images. Packs that are mostly dead are copied to smaller ones first.
    """
    from regraft.stores.gc import collect

    with meter(progress) as shown, opened(store) as found:
        report = collect(found, dry_run=dry_run, progress=shown)
    if as_json:
        emit_json("gc", asdict(report) | {"store": store, "dry_run": dry_run})
    else:
        doing = "would be freed" if dry_run else "freed"
        say(f"{store}: {size(report.freed)} {doing} in {report.packs} packs, {size(report.live)} are needed")
