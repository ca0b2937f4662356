# SPDX-License-Identifier: Apache-2.0
"""`regraft store rm`: remove images."""

from __future__ import annotations

import click

from regraft.cli._options import examples
from regraft.cli._output import say
from regraft.cli._store import opened, store_argument


@click.command(epilog=examples("regraft store rm /data/images v1 v2 && regraft store gc /data/images"))
@store_argument
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Remove pinned images too.")
def command(store: str, names: tuple[str, ...], force: bool) -> None:
    """Remove images from STORE, complete or not. `store gc` gives their space back.

    An image that is mounted, served or being cloned is refused.
    """
    with opened(store) as found:
        for name in names:
            found.remove(name, force=force)
            say(f"{store}/{name} is removed")
