# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay swap`: from the daemon to the base itself."""

from __future__ import annotations

import click

from regraft.cli._options import examples
from regraft.cli._output import say


@click.command(epilog=examples("regraft overlay swap system"))
@click.argument("name")
def command(name: str) -> None:
    """Have the device lead to the base, in which all is merged, under whatever is mounted on it; its daemon ends.

    An overlay does so by itself, unless it was made with --no-swap, or that failed.
    """
    from regraft.blockdev.overlay import map_base
    from regraft.cli.overlay._ask import find, no_daemon, tell

    record = find(name)
    if not tell(record, "swap") and not (record.merged and map_base(record)):
        raise no_daemon(record)
    say(f"{record.target} is {record.base}")
