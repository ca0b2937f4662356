# SPDX-License-Identifier: Apache-2.0
"""What a plan will cost, before anything moves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regraft.engine.match import wanted_units
from regraft.engine.ranges import Link, Range, plan_requests
from regraft.formats.codecs import most_stored
from regraft.limits import DEFAULT, Limits
from regraft.model import Addressing, Kind, Plan


@dataclass(frozen=True, slots=True)
class Cost:
    """Sizes in bytes, `seconds` of network time at the given link.

    at_most: the stored sizes are not known, as with casync, and what incompressible chunks would take stands for them:
    `fetch`, `transfer`, `full` and `seconds` are then upper bounds.
    """

    image: int
    fetch: int  #: stored bytes that are missing
    transfer: int  #: what will pass the link: missing bytes, and gaps that are cheaper than a round trip
    requests: int
    reused: int  #: decoded bytes copied from seeds
    zeros: int
    in_place: int
    fetched_image: int  #: decoded bytes that come from the link
    full: int  #: stored bytes of the whole artifact: what it would cost without seeds
    scratch: int  #: disk beside the target
    memory: int  #: peak estimate
    seconds: float
    at_most: bool = False

    @property
    def saved(self) -> int:
        """Bytes that need not pass the link."""
        return self.full - self.transfer


#: Resident size of the interpreter with the device side's modules, measured on x86-64.
_INTERPRETER = 36 << 20

#: What the columns of a plan take, beside those of its recipe and while they are matched; buffers of all threads.
_COPIES, _BATCHES = 3, 8


def forecast(
    plan: Plan, link: Link, *, finished: Sequence[int] = b"", ranges_per_request: int = 0, limits: Limits = DEFAULT
) -> Cost:
    """The cost of a plan whose every first operation succeeds; `finished` flags rows that are already in the target."""
    table, units = plan.table, plan.recipe.units
    bytes_by_kind = dict.fromkeys(Kind, 0)
    in_place = 0
    todo: list[int] = []
    for row in range(len(table)):
        if row < len(finished) and finished[row]:
            in_place += table.length(row)
        else:
            todo.append(row)
            bytes_by_kind[Kind(table.kind[table.first[row]])] += table.length(row)
    wanted = with_dictionaries(plan, wanted_units(plan, todo, bytes(len(table))))
    files = {number for number, blob in enumerate(plan.recipe.blobs) if blob.addressing is Addressing.FILES}
    ranges = sorted(Range(units.offset[unit], units.stored[unit]) for unit in wanted if units.blob[unit] not in files)
    requests = plan_requests(
        ranges, link=link, ranges_per_request=ranges_per_request or limits.ranges_per_request, limits=limits
    )
    chunks = [most_stored(units.length[unit]) for unit in wanted if units.blob[unit] in files]
    transfer = sum(request.total for request in requests) + sum(chunks)
    seconds = transfer / link.bandwidth if wanted else 0.0
    seconds += link.round_trip * (bool(requests) + -(-len(chunks) // limits.chunk_connections))
    return Cost(
        image=table.size,
        fetch=sum(length for _, length in ranges) + sum(chunks),
        transfer=transfer,
        requests=len(requests) + len(chunks),
        reused=bytes_by_kind[Kind.COPY],
        zeros=bytes_by_kind[Kind.ZERO],
        in_place=in_place,
        fetched_image=bytes_by_kind[Kind.DATA] + bytes_by_kind[Kind.PATCH],
        full=_full(plan, files),
        scratch=_journal_bound(len(table)),
        memory=_INTERPRETER + _COPIES * _columns(plan) + limits.buffer + _BATCHES * limits.batch,
        seconds=seconds,
        at_most=bool(files),
    )


def _full(plan: Plan, files: set[int]) -> int:
    """Stored bytes of the whole artifact; of chunk files the most that they can be, each different one once."""
    recipe = plan.recipe
    if not files:
        return sum(recipe.units.stored)
    units, table, different, total = recipe.units, recipe.table, set[bytes](), 0
    for row in range(len(table)):
        number = table.first[row]
        unit = table.unit[number]
        if table.kind[number] == Kind.DATA and units.blob[unit] in files and table.digests[row] not in different:
            different.add(table.digests[row])
            total += most_stored(units.length[unit])
    return total + sum(units.stored[unit] for unit in range(len(units)) if units.blob[unit] not in files)


def with_dictionaries(plan: Plan, wanted: dict[int, list[int]]) -> dict[int, list[int]]:
    """The same units, and the dictionaries without which they cannot be decoded (wanted by no row)."""
    units, codecs = plan.recipe.units, plan.recipe.codecs
    more = {codecs[units.codec[unit]].dictionary for unit in wanted} - {None} - wanted.keys()
    return {**{unit: [] for unit in more if unit is not None}, **wanted}


def _journal_bound(rows: int) -> int:
    return 4096 + 24 * rows


def _columns(plan: Plan) -> int:
    table, units = plan.table, plan.recipe.units
    return 12 * len(table) + 19 * len(table.kind) + len(table.digests.data) + 25 * len(units) + len(units.digests.data)
