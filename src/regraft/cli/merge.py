# SPDX-License-Identifier: Apache-2.0
"""`regraft merge`: an update in place, over the image that it is made from."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import Size, examples, json_option, progress_option
from regraft.cli._output import emit_json, say, size
from regraft.cli._progress import meter
from regraft.errors import SourceError, UsageError

if TYPE_CHECKING:
    from types import FrameType

    from regraft.engine.merge import Merge
    from regraft.engine.order import Forecast


@click.command(
    epilog=examples(
        "regraft merge rootfs.zck --base /dev/mmcblk0p3 --dry-run",
        "regraft merge rootfs.zck --base /dev/mmcblk0p3 --rate 10M --load 2",
        "regraft merge https://host/rootfs.cba --base rootfs.ext4",
    )
)
@click.argument("plan")
@click.option("--base", required=True, metavar="PATH", help="File or block device that becomes the new image.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what it would do and what that takes; write nothing.")
@click.option(
    "--window", type=Size(), default="8Mi", show_default=True, help="Bytes that are journaled at once, at most."
)
@click.option("--rate", type=Size(), default=None, help="Bytes to write per second, at most: 10M, 512Ki.")
@click.option("--load", type=float, default=0, help="Wait while the system's load is above this; 0: never.")
@click.option("--speed", type=Size(), default="20M", show_default=True, help="Of the base, for the time of --dry-run.")
@network_options
@progress_option
@json_option
def command(
    plan: str, base: str, dry_run: bool, window: int, rate: int | None, load: float, speed: int, network: Network,
    progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Make the image of PLAN, a zchunk file or bita archive (a path or URL), out of the base and over it.

    No second slot is needed. Until the command has ended the base is neither the old nor the new image; interrupted at
    any point, by a power cut too, the same command goes on. What the base does not have is fetched before anything is
    written. SIGTERM and SIGINT let it finish its batch.
    """
    from regraft.cli._artifact import is_url, open_artifact
    from regraft.engine.artifact_merge import ArtifactMerge, begun, plan_onto
    from regraft.engine.files import open_source, open_target
    from regraft.engine.order import forecast, order
    from regraft.engine.state import state_of
    from regraft.engine.throttle import Throttle

    if not os.path.exists(base):
        raise SourceError(f"open {base}: No such file or directory", cure="give the base that is to be updated")
    if not is_url(plan) and os.path.exists(plan) and os.path.samefile(plan, base):
        raise UsageError(f"{base} is the artifact itself", cure="give the image that is to be updated")
    with meter(progress) as shown, open_artifact(plan, network) as artifact:
        if dry_run:
            known = state_of(base, create=False)
            if known is not None and begun(known):
                say(f"a merge onto {base} has begun: these figures are for what the base holds now")
            source = open_source(base)
            try:
                made = plan_onto(artifact.recipe, source, progress=shown)
            finally:
                source.close()
            cost = forecast(made, order(made, window=window))
            seconds = cost.written / min(speed, rate or speed)
            if as_json:
                facts = {"plan": plan, "base": base, "dry_run": True, "seconds": round(seconds, 1)}
                emit_json("merge", facts | cost_facts(cost))
            else:
                click.echo("\n".join(cost_lines(cost, seconds)))
            return
        target = open_target(base)
        try:
            work = ArtifactMerge(
                artifact.recipe, artifact.blob, target, state_of(base), remote=artifact.remote,
                window=window, throttle=Throttle(rate or 0, load), progress=shown,
            )  # fmt: skip
            try:
                cost = forecast(work.plan, work.schedule)
                with stopping(work.merge) as signals:
                    complete = work.run()
                status = work.merge.status()
            finally:
                work.close()
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
