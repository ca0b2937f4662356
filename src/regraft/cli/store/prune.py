# SPDX-License-Identifier: Apache-2.0
"""`regraft store prune`: keep of a casync store what some indexes need."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, say, size
from regraft.errors import UnsupportedError

if TYPE_CHECKING:
    from regraft.formats.caibx import Header


@click.command(
    epilog=examples(
        "regraft store prune /srv/all.castr /srv/*.caibx --dry-run",
        "regraft store prune /srv/all.castr v2.caibx v3.caibx --json | jq .removed_bytes",
    )
)
@click.argument("store", type=click.Path(exists=True, file_okay=False))
@click.argument("indexes", metavar="INDEX...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--incomplete", is_flag=True, help="Some chunks of these indexes lie in other stores.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@json_option
def command(store: str, indexes: tuple[str, ...], incomplete: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the chunks of a casync STORE (.castr) that no INDEX (.caibx) names, and its forgotten temporary files.

    Name every index that is to stay usable. If one cannot be read, or names a chunk that is not in the store, nothing
    is removed. Refused while `regraft pack` or `convert` adds chunks; casync and desync take no lock: do not run it
    while they write to STORE. Stores that `regraft clone` fills have `regraft store gc` instead.
    """
    from regraft.engine.chunkstores import LocalStore
    from regraft.stores.prune import prune
    from regraft.stores.store import check_chunk_files

    check_chunk_files(store)
    report = prune(
        LocalStore(store), lambda: {name: _index(name) for name in indexes}, incomplete=incomplete, dry_run=dry_run
    )
    if as_json:
        emit_json("store-prune", asdict(report) | {"store": store, "indexes": list(indexes), "dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    say(
        f"{store}: {report.removed} chunks of {size(report.removed_bytes)} {would}removed, {report.kept} of "
        f"{size(report.kept_bytes)} kept"
    )
    if report.temporary:
        say(f"{store}: {report.temporary} temporary files of {size(report.temporary_bytes)} {would}removed")
    if report.missing:
        say(f"{store}: {report.missing} chunks of these indexes are not here")


def _index(path: str) -> Header:
    from regraft.cli._artifact import read_any_header
    from regraft.engine.files import open_source
    from regraft.formats import caibx

    medium = open_source(path)
    try:
        header = read_any_header(medium)
    finally:
        medium.close()
    if not isinstance(header, caibx.Header):
        raise UnsupportedError(f"{path} is an artifact, but no casync index", cure="name .caibx files")
    return header
