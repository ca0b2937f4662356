# SPDX-License-Identifier: Apache-2.0
"""`regraft store unpin`: let images go."""

from __future__ import annotations

import click

from regraft.cli._options import examples
from regraft.cli._output import say
from regraft.cli._store import opened, store_argument


@click.command(epilog=examples("regraft store unpin /data/images factory"))
@store_argument
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def command(store: str, names: tuple[str, ...]) -> None:
    """Let images of STORE be removed again."""
    with opened(store) as found:
        for name in names:
            found.unpin(name)
            say(f"{store}/{name} is not pinned any more")
