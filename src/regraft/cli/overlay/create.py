# SPDX-License-Identifier: Apache-2.0
"""`regraft overlay create`: a device that is the new image, and a daemon that merges it into the base."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._merge_work import How, merge_options
from regraft.cli._options import examples, json_option
from regraft.cli._output import emit_json, say
from regraft.errors import BusyError, StateError, UsageError
from regraft.limits import DEFAULT

if TYPE_CHECKING:
    from regraft.blockdev.records import Record

Ready = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for; `what` and `base` are absolute paths."""

    name: str
    what: str
    base: str
    how: How
    merging: bool
    swap: bool
    connections: int
    timeout: int
    dead_timeout: int
    lock: bool


@click.command(
    epilog=examples(
        "regraft overlay create system --base /dev/mmcblk0p3 --diff diff.img && mount -o ro /dev/mapper/system /mnt",
        "regraft overlay create system --base /dev/mmcblk0p3 --diff diff.img --no-bg-update    then, if all is well:",
        "regraft overlay merge system",
    )
)
@click.argument("name")
@click.option("--base", required=True, metavar="DEV", help="Block device that becomes the new image.")
@click.option("--diff", "what", required=True, metavar="FILE", help="Delta, with its sidecar, or chunked artifact.")
@click.option("--no-bg-update", is_flag=True, help="Do not merge until `overlay merge`: until then nothing is changed.")
@click.option("--no-swap", is_flag=True, help="Do not go over to the base when all is merged, before `overlay swap`.")
@merge_options
@click.option(
    "-C",
    "--connections",
    type=click.IntRange(1, DEFAULT.mount_connections),
    default=2,
    show_default=True,
    help="Sockets between kernel and daemon; each is served by a thread.",
)
@click.option(
    "-t",
    "--timeout",
    type=click.IntRange(0, 3600),
    default=30,
    show_default=True,
    help="Seconds until the kernel sends a request again over another socket; 0: never.",
)
@click.option(
    "--dead-timeout",
    type=click.IntRange(0, 10_000_000),
    default=86_400,
    show_default=True,
    help="Seconds that readers wait for a new daemon when this one has died; then they get errors.",
)
@click.option("--foreground", is_flag=True, help="Stay, and tell systemd when ready (Type=notify).")
@click.option("--mlock", "lock", is_flag=True, help="Keep the daemon's memory out of swap, and its code in memory.")
@json_option
def command(
    name: str, base: str, what: str, no_bg_update: bool, no_swap: bool, how: How, connections: int, timeout: int,
    dead_timeout: int, foreground: bool, lock: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make /dev/mapper/NAME, read-only, the new image that FILE makes of DEV, and print it. A daemon merges FILE into
    DEV meanwhile; when all is there, the name leads to DEV itself, under whatever is mounted, and the daemon ends.

    The same command is for every start of the system, and for when the daemon died: it goes on where that stopped; when
    all is merged it needs no daemon, and no FILE. SIGTERM ends the daemon between two batches; while the device is
    used it merges no more, but serves.
    """
    from regraft.blockdev.daemon import in_background, notify
    from regraft.blockdev.device_mapper import is_name

    if not is_name(name):
        raise UsageError(f"{name!r} is no name for a device", cure="letters, digits and #+-.:=@_, a letter first")
    try:
        if not stat.S_ISBLK(os.stat(base).st_mode):
            raise UsageError(f"{base} is no block device", cure="for files there is `regraft nbd --merge`")
    except OSError as error:
        raise UsageError(f"{base}: {error.strerror}", cure="give the device that is to be updated") from None
    job = Job(
        name, os.path.abspath(what), os.path.abspath(base), how, not no_bg_update, not no_swap, connections, timeout,
        dead_timeout, lock,
    )  # fmt: skip

    def announce(fields: dict[str, Any]) -> None:
        if as_json:
            emit_json("overlay", fields)
        else:
            sys.stdout.write(f"{fields['device']}\n")
        sys.stdout.flush()

    old = _known(job)
    if old is not None and _without_daemon(old):
        announce({"device": old.target, "size": old.size, "pid": 0, "merged": True})
        notify(f"READY=1\nSTATUS={old.target} is {old.base}")
    elif foreground:
        _run(job, old, announce, say)
    else:
        announce(in_background(lambda ready: _run(job, old, ready, lambda _: None)))


def _known(job: Job) -> Record | None:
    """What an earlier call has left. Raises StateError, BusyError."""
    from regraft.blockdev import records
    from regraft.blockdev.overlay import target_of

    old = records.load(target_of(job.name))
    if old is None:
        return None
    if (old.what, old.base) != (job.what, job.base):
        raise StateError(
            f"{job.name} is an overlay of {old.what} over {old.base}", cure=f"regraft overlay remove {job.name}"
        )
    if records.ask(old.stem, "status") is not None:
        raise BusyError(f"{old.target} is served by process {old.pid}", cure="see `regraft overlay status`")
    return old


def _without_daemon(old: Record) -> bool:
    """Whether all is merged, and the device leads to the base."""
    from regraft.blockdev.overlay import map_base

    return old.merged and map_base(old)


def _run(job: Job, old: Record | None, ready: Ready, echo: Callable[[str], None]) -> None:
    """Begin, say so, and serve until the end."""
    from regraft.blockdev import records
    from regraft.blockdev.attachment import choose
    from regraft.blockdev.daemon import Control, harden, serve
    from regraft.blockdev.mounts import Faults, NbdMount
    from regraft.blockdev.overlay import OverlayMount, is_attached_for, target_of
    from regraft.blockdev.views import joined
    from regraft.cli._merge_export import open_merging
    from regraft.cli._network import Network

    faults, wake, attachment = Faults(echo), threading.Event(), choose()
    with ExitStack() as stack:
        opening = open_merging(job.what, job.base, job.how, Network(), name=job.name, report=faults.report)
        merging = stack.enter_context(opening)
        whole = joined([merging.export], name="disk")
        record = records.Record(
            kind="overlay", target=target_of(job.name), what=job.what, size=whole.size, pid=os.getpid(),
            identifier=_identifier(job, merging.recipe), connections=job.connections, timeout=job.timeout,
            dead_timeout=job.dead_timeout, base=job.base, swap=job.swap,
            # Once it was told to merge, or has begun, that counts, whatever the boot script says.
            merging=job.merging or merging.background.begun or (old is not None and old.merging),
        )  # fmt: skip
        attached = old is not None and old.identifier == record.identifier and is_attached_for(old)
        below = replace(record, kind="nbd", target=old.device if old is not None and attached else "auto")
        disk = NbdMount(whole, attachment, below, faults)
        mount = OverlayMount(disk, record, merging.background, merging.free, faults)
        stack.callback(mount.close)
        mount.begin(attached=attached)
        control = Control(mount, wake, faults)
        harden(lock=job.lock)
        ready({
            "device": record.target, "size": record.size, "pid": os.getpid(), "merged": mount.record.merged,
        })  # fmt: skip
        serve(mount, control, wake, faults)


def _identifier(job: Job, recipe: Any) -> str:
    """What the kernel compares when a new daemon comes: the same only for the same image over the same base."""
    import hashlib

    from regraft.engine.state import identity_of

    hasher = hashlib.sha256(b"regraft overlay\0" + os.fsencode(job.base) + b"\0" + identity_of(recipe))
    return f"regraft-{hasher.hexdigest()[:40]}"
