# SPDX-License-Identifier: Apache-2.0
"""`regraft umount`: take a mount away."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, say
from regraft.errors import MissingError, RegraftError, UsageError

if TYPE_CHECKING:
    from regraft.blockdev.records import Record


@click.command(
    epilog=examples("umount /mnt && regraft umount /dev/nbd0", "regraft umount /run/rootfs.img"),
)
@click.argument("target", metavar="DEV|FILE")
@click.option("--force", is_flag=True, help="Even if it is used: who reads from it then gets errors.")
@json_option
def command(target: str, force: bool, as_json: bool) -> None:
    """Detach DEV, or unmount FILE, and end its daemon. Refused while it is used, e.g. by a mounted file system.

    Also for what a daemon that died has left behind.
    """
    from regraft.blockdev import records
    from regraft.blockdev.daemon import as_error
    from regraft.cli._store import without_secrets

    record = records.load(_target(target))
    if record is None:
        raise MissingError(f"{target} is no mount of regraft", cure="`regraft status` lists those there are")
    if record.kind == "overlay":
        raise UsageError(f"{target} is an overlay", cure="regraft overlay remove")
    answer = records.ask(record.stem, "detach", force=force)
    if answer is None:
        _clear(record, force)
    elif "error" in answer:
        raise as_error(answer["error"])
    if as_json:
        emit_json(
            "umount", {"target": record.target, "what": without_secrets(record.what), "daemon": answer is not None}
        )
    else:
        say(f"{record.target}: detached")


def _target(words: str) -> str:
    """The device below a verified one, else as it is."""
    from regraft.blockdev import records

    for record in records.every():
        if record.mapper and words == f"/dev/mapper/{record.mapper}":
            return record.target
    return words


def _clear(record: Record, force: bool) -> None:
    """Without a daemon."""
    from regraft.blockdev import mounting, records
    from regraft.blockdev.attachment import choose, index_of, is_attached
    from regraft.blockdev.mounting import UnmountFlag
    from regraft.blockdev.mounts import release

    if record.kind == "nbd":
        if is_attached(index_of(record.target)):
            release(record, choose(), alive=False, force=force)
    elif any(each.point == record.target for each in mounting.mounts()):
        mounting.unmount(record.target, UnmountFlag.DETACH)
    with suppress(RegraftError, OSError):
        records.remove(record.stem)
