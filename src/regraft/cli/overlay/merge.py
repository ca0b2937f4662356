# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay merge`: have the base become the new image, or let that rest."""

from __future__ import annotations

import click

from regraft.cli._options import examples
from regraft.cli._output import say


@click.command(epilog=examples("regraft overlay merge system", "regraft overlay merge system --pause"))
@click.argument("name")
@click.option("--pause", is_flag=True, help="Rest after the current batch, until told to go on; a new daemon goes on.")
def command(name: str, pause: bool) -> None:
    """Merge in the background: for an overlay made with --no-bg-update, one that rests, or whose merge failed.

    From the first write on there is no way back to the old image.
    """
    from regraft.cli.overlay._ask import find, no_daemon, tell

    record = find(name)
    if record.merged:
        say(f"{record.target}: all is merged")
    elif not tell(record, "pause" if pause else "merge"):
        raise no_daemon(record)
