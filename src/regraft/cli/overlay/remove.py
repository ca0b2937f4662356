# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay remove`: back to the old image, or all is done."""

from __future__ import annotations

import click

from regraft.cli._options import examples
from regraft.cli._output import say
from regraft.errors import StateError


@click.command(epilog=examples("umount /mnt && regraft overlay remove system"))
@click.argument("name")
def command(name: str) -> None:
    """Take the device away and forget the overlay. As long as nothing was merged, the base is the old image still: this
    is how to roll back. When all is merged it is the new one. In between, this is refused.
    """
    from regraft.blockdev import records
    from regraft.blockdev.attachment import choose
    from regraft.blockdev.overlay import NO_WAY_BACK, clear
    from regraft.cli.overlay._ask import find, tell
    from regraft.engine.artifact_merge import begun
    from regraft.engine.state import state_of

    record = find(name)
    if not tell(record, "remove"):
        state = state_of(record.base, create=False)
        if not record.merged and state is not None and begun(state):
            raise StateError(f"{record.base} is changed already: there is no way back", cure=NO_WAY_BACK)
        clear(record, choose)
    record = find(name)  # what the daemon wrote last
    records.remove(record.stem)
    say(f"{record.target} is removed; {record.base} is the {'new' if record.merged else 'old'} image")
