# SPDX-License-Identifier: Apache-2.0
"""`regraft store ls`: the images of a store."""

from __future__ import annotations

from dataclasses import asdict

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, size
from regraft.cli._store import opened, store_argument


@click.command(
    epilog=examples("regraft store ls /data/images", "regraft store ls /data/images --json | jq '.images[].name'")
)
@store_argument
@json_option
def command(store: str, as_json: bool) -> None:
    """List the images of STORE: their sizes, what removing each would free, and what keeps them.

    `own` is what no other image needs: `store rm` and `store gc` give that much back.
    """
    from regraft.stores.listing import listing

    with opened(store) as found:
        content = listing(found)
    if as_json:
        emit_json("store", asdict(content) | {"store": store})
        return
    rows = [("image", "size", "own", "shared", "")]
    for image in content.images:
        own, shared = ("-", "-") if image.damaged else (size(image.unique), size(image.shared))
        rows.append((image.name, "-" if image.damaged else size(image.size), own, shared, ", ".join(image.marks)))
    width = max(len(row[0]) for row in rows)
    for row in rows:
        click.echo(f"{row[0]:{width}}  {row[1]:>9}  {row[2]:>9}  {row[3]:>9}  {row[4]}".rstrip())
    click.echo(f"{size(content.disk)} on disk in {content.packs} packs, {size(content.free)} free")
