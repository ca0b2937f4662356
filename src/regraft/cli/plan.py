# SPDX-License-Identifier: Apache-2.0
"""`regraft plan`: what an update will cost, before anything moves."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import Size, examples, json_option, progress_option, seed_option
from regraft.cli._output import emit_json, size
from regraft.cli._progress import meter

if TYPE_CHECKING:
    from regraft.engine.cost import Cost


@click.command(
    epilog=examples(
        "regraft plan rootfs.zck --seed old.ext4",
        "regraft plan https://host/rootfs.zck --seed /dev/mmcblk0p2 --bandwidth 20M --rtt 100",
        "regraft plan rootfs.zck --seed old.ext4 --json | jq .fetch",
    )
)
@click.argument("what")
@seed_option
@click.option(
    "--bandwidth", type=Size(), default="20M", show_default=True, help="Of the link, in bits per second: 20M, 1G."
)
@click.option("--rtt", type=click.FloatRange(0, 60_000), default=100, show_default=True, help="Round trip, in ms.")
@click.option(
    "--max-ranges", type=click.IntRange(1, 10_000), default=None, help="Ranges that the server takes in a request."
)
@network_options
@progress_option
@json_option
def command(
    what: str, seeds: tuple[str, ...], bandwidth: int, rtt: float, max_ranges: int | None, network: Network,
    progress: str, as_json: bool,
) -> None:  # fmt: skip
    """Say what it takes to obtain WHAT with these seeds. Writes nothing.

    WHAT is a zchunk file, a bita archive or a casync index, or its URL; or an image of a chunk store, as STORE/NAME.

    A bundle's plan is shown by `regraft install -n`.
    """
    from regraft.cli._artifact import open_artifact
    from regraft.cli._store import open_seeds
    from regraft.engine.cost import forecast
    from regraft.engine.match import match
    from regraft.engine.ranges import Link

    link = Link(bandwidth=max(bandwidth / 8, 1), round_trip=rtt / 1000)
    with meter(progress) as shown, open_artifact(what, network) as artifact, ExitStack() as held:
        algorithm, chunker = artifact.recipe.matchable, artifact.recipe.chunker
        opened = open_seeds(seeds, algorithm, chunker, held, shown)
        plan = match(artifact.recipe, [(seed.medium.name, seed.index) for seed in opened])
    cost = forecast(plan, link, ranges_per_request=max_ranges or 0)
    facts = cost_facts(cost)
    if as_json:
        emit_json("plan", {"what": what, "seeds": list(seeds), **facts})
    else:
        click.echo("\n".join(cost_lines(cost, link.bandwidth * 8, link.round_trip)))


def cost_facts(cost: Cost) -> dict[str, Any]:
    """The fields of a cost, for JSON."""
    from dataclasses import asdict

    return asdict(cost) | {"saved": cost.saved}


def cost_lines(cost: Cost, bits_per_second: float, round_trip: float) -> list[str]:
    """A cost, for a person."""
    part = cost.transfer / cost.full if cost.full else 0.0
    bound = "at most " if cost.at_most else ""
    between = f"{size(cost.transfer)} with the gaps between"
    if cost.at_most:
        between = "one for each chunk, whose stored size is not known"
    return [
        f"image           {size(cost.image)}",
        f"to fetch        {bound}{size(cost.fetch)} in {cost.requests} requests, {between}",
        f"without seeds   {bound}{size(cost.full)}: this fetches {part:.1%} of it",
        f"from seeds      {size(cost.reused)}, zeros {size(cost.zeros)}, already in place {size(cost.in_place)}",
        f"scratch         {size(cost.scratch)} of disk, about {size(cost.memory)} of memory",
        f"network time    {bound}{cost.seconds:.1f} s at {bits_per_second / 1e6:g} Mbit/s and {round_trip * 1000:g} ms",
    ]
