# SPDX-License-Identifier: Apache-2.0
"""`regraft merge`: an update in place, over the image that it is made from."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._merge_work import How, check_base, merge_options, open_plan, open_work
from regraft.cli._network import Network, network_options
from regraft.cli._options import Size, examples, json_option, progress_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter

if TYPE_CHECKING:
    from types import FrameType

    from regraft.engine.merge import Merge
    from regraft.engine.order import Forecast
    from regraft.engine.progress import Progress


@click.command(
    epilog=examples(
        "regraft merge rootfs.zck --base /dev/mmcblk0p3 --dry-run",
        "regraft merge rootfs.zck --base /dev/mmcblk0p3 --rate 10M --load 2",
        "regraft merge https://host/rootfs.cba --base rootfs.ext4",
        "regraft merge diff.img --base /dev/mmcblk0p3            made by `regraft delta`, with diff.img.sidecar",
    )
)
@click.argument("plan")
@click.option("--base", required=True, metavar="PATH", help="File or block device that becomes the new image.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what it would do and what that takes; write nothing.")
@merge_options
@click.option("--speed", type=Size(), default="20M", show_default=True, help="Of the base, for the time of --dry-run.")
@network_options
@progress_option
@json_option
def command(
    plan: str, base: str, dry_run: bool, how: How, speed: int, network: Network, progress: str, as_json: bool
) -> None:
    """Make the image of PLAN out of the base and over it. PLAN is a zchunk file, bita archive or casync index (a path
    or URL), or a delta, dm-update or Android's, in a file, with its sidecar.

    No second slot is needed. Until the command has ended the base is neither the old nor the new image; interrupted at
    any point, by a power cut too, the same command goes on. What the base does not have is fetched before anything is
    written, and a delta's base is compared with its digest. SIGTERM and SIGINT let it finish its batch.
    """
    from regraft.engine.files import open_target
    from regraft.engine.order import forecast

    check_base(plan, base)
    with meter(progress) as shown:
        if dry_run:
            _look(plan, base, how, speed, network, shown, as_json)
            return
        target = open_target(base)
        try:
            with open_work(plan, target, how, network, progress=shown) as work:
                cost = forecast(work.plan, work.schedule)
                with stopping(work.merge) as signals:
                    complete = work.run()
                status = work.merge.status()
        finally:
            target.close()
    if as_json:
        facts = {"plan": plan, "base": base, "dry_run": False, "complete": complete, "resumed": work.resumed}
        emit_json("merge", facts | {"batch": status.batch, "fetched": work.fetched, **cost_facts(cost)})
    elif complete:
        written = cost.direct + cost.journaled
        say(f"{base}: {size(cost.image)}, {size(written)} of it written, {size(cost.in_place)} stayed")
    else:
        say(f"stopped after batch {status.batch} of {status.batches}; run the same command again to continue")
    if not complete:
        raise SystemExit(128 + signals[0])


def _look(what: str, base: str, how: How, speed: int, network: Network, shown: Progress, as_json: bool) -> None:
    """The forecast of --dry-run. `speed`: bytes per second that the base takes."""
    from regraft.engine.artifact_merge import begun
    from regraft.engine.order import forecast, order
    from regraft.engine.state import state_of

    known = state_of(base, create=False)
    if known is not None and begun(known):
        say(f"a merge onto {base} has begun: these figures are for what the base holds now")
    with open_plan(what, base, how, network, progress=shown) as made:
        cost = forecast(made, order(made, window=how.window))
    seconds = cost.written / min(speed, how.rate or speed)
    if as_json:
        facts = {"plan": what, "base": base, "dry_run": True, "seconds": round(seconds, 1)}
        emit_json("merge", facts | cost_facts(cost))
    else:
        click.echo("\n".join(cost_lines(cost, seconds)))


@contextmanager
def stopping(merge: Merge) -> Iterator[list[int]]:
    """SIGTERM and SIGINT end the merge after its batch; the list has those that came. A second one ends it at once."""
    came: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        merge.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cost_facts(cost: Forecast) -> dict[str, Any]:
    """The fields of a forecast, for JSON."""
    from dataclasses import asdict

    return asdict(cost) | {"written": cost.written}


def cost_lines(cost: Forecast, seconds: float) -> list[str]:
    """A forecast, for a person."""
    wear = cost.written / cost.image if cost.image else 0.0
    return [
        f"image        {size(cost.image)}, {size(cost.in_place)} of it in place already",
        f"batches      {cost.batches}, {cost.windows} of them journaled, the largest of {size(cost.largest_window)}",
        f"conversions  {cost.converted} rows, {size(cost.converted_bytes)}, from stored bytes though the base has them",
        f"to decode    {size(cost.stored)} of stored bytes",
        f"written      {size(cost.direct)} once, {size(cost.journaled)} twice: {size(cost.written)} with the journal",
        f"flash wear   {wear:.0%} of writing the whole image once; {cost.flushes} flushes",
        f"scratch      {size(cost.journal)} for the journal",
        f"time         about {seconds:.0f} s",
    ]
