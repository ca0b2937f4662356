# SPDX-License-Identifier: Apache-2.0
"""`link.py scattered|chunks OLD ZCK`: fetch ranges of ZCK over a delayed link; figures as JSON.

chunks: what OLD lacks, up to 6 MB. scattered: 300 ranges of 2 to 30 kB all over the file.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time

from regraft.cli._artifact import read_header
from regraft.engine.files import open_source
from regraft.engine.match import match, wanted_units
from regraft.engine.ranges import Range
from regraft.engine.seeds import index_medium
from regraft.formats import zchunk
from regraft.server.static import StaticServer
from regraft.testing.link import DelayedLink
from regraft.transports.fetcher import Fetcher

_BANDWIDTH, _ROUND_TRIP = 20e6 / 8, 0.1
_MOST = 6_000_000


def _chunks(old: str, artifact: str) -> list[Range]:
    header, _ = read_header(open_source(artifact))
    recipe = zchunk.recipe(header, artifact)
    algorithm = recipe.table.digests.algorithm
    assert algorithm is not None
    plan = match(recipe, [(old, index_medium(open_source(old), algorithm))])
    wanted = wanted_units(plan, range(len(plan.table)), bytes(len(plan.table)))
    units = recipe.units
    found: list[Range] = []
    total = 0
    for wish in sorted(Range(units.offset[unit], units.stored[unit]) for unit in wanted):
        total += wish.length
        if total > _MOST:
            break
        found.append(wish)
    return found


def _scattered(artifact: str) -> list[Range]:
    chance = random.Random(3)
    step = os.path.getsize(artifact) // 300
    return [
        Range(number * step + chance.randrange(step // 4), min(chance.randint(2000, 30_000), step // 2))
        for number in range(300)
    ]


what, old, artifact = sys.argv[1:]
ranges = _chunks(old, artifact) if what == "chunks" else _scattered(artifact)
with (
    StaticServer(os.path.dirname(artifact)) as server,
    DelayedLink("127.0.0.1", int(server.url.rsplit(":", 1)[1]), round_trip=_ROUND_TRIP, bandwidth=_BANDWIDTH) as line,
    Fetcher() as fetcher,
):
    source = fetcher.open(f"{line.url}/{os.path.basename(artifact)}")
    began = time.monotonic()
    fetched = sum(len(content) for _, content in source.fetch(ranges))
    seconds = time.monotonic() - began
    stats = source.stats
pure = fetched / _BANDWIDTH
print(
    json.dumps(
        {
            "ranges": len(ranges),
            "bytes": fetched,
            "wire": stats.bytes,
            "requests": stats.requests,
            "seconds": seconds,
            "pure": pure,
            "single": len(ranges) * _ROUND_TRIP + pure,
        }
    )
)
