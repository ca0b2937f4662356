# SPDX-License-Identifier: Apache-2.0
"""The crash laboratory, thorough: the states that a power cut can leave, by the hundred thousand, each run on to its
end.

`regraft.testing.crash` records what a run does to its media; this visits what may be left of it. The rules are those of
`regraft.engine.medium`: between two syncs of a medium any of its writes may be lost, in any combination, over all media
at once, and the sectors of one write arrive one by one. A discard is a write of zeros. Names take effect in order.

    def run(target, directory):                      # the code under test; it must go on from where it was
        ...

    def check(world):                                # raises if what the run ended with is wrong
        assert world.target.content == new

    report = survey(World(MemoryMedium(old, device=True)), run, check, rules=Rules(seed=1), again=20)
    assert report.states > 10_000

Where few writes are pending every subset of them is visited, else those that find most faults: all, none, one, all but
one, a prefix, and some by chance (seeded: the same states every time). A state is built once, when the last write that
it holds is made. To be fast, keep images small (64 KiB) and blocks smaller: the time goes into running on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from regraft.engine.medium import Directory, Medium
from regraft.testing.crash import SECTOR, Event, Log, MemoryDirectory, World
from regraft.testing.memory import MemoryMedium

Run = Callable[[Medium, Directory], object]
Check = Callable[[World], object]


@dataclass(frozen=True, slots=True)
class Rules:
    """Which states are visited.

    exhaustive: up to so many writes that are pending besides the latest, every subset of them. chances: subsets by
    chance where there are more. tears: places at which the latest write is torn, by chance if it has more. seed: of
    everything that is left to chance.
    """

    exhaustive: int = 6
    chances: int = 8
    tears: int = 3
    seed: int = 0


class Cut(NamedTuple):
    """A power cut: the state it leaves, and how it came about, for the message of a failure."""

    world: World
    event: int  #: number of the call in the log after which the power went
    story: str

    def __str__(self) -> str:
        return f"power cut after call {self.event}: {self.story}"


@dataclass(slots=True)
class Report:
    """What a survey has visited."""

    states: int = 0
    cuts_in_restarts: int = 0


class _Piece(NamedTuple):
    """A pending write, or what arrived of it. data None: a new size, in `offset`."""

    body: int
    offset: int
    data: bytes | None


class CutError(AssertionError):
    """A state from which the run did not end as it should; `cut` has it. `cut.world` is as the run left it."""

    def __init__(self, cut: Cut, cause: BaseException) -> None:
        super().__init__(f"{cut}: {type(cause).__name__}: {cause}")
        self.cut = cut


def survey(
    start: World, run: Run, check: Check, *, rules: Rules | None = None, again: int = 0, most: int = 0
) -> Report:
    """Run, cut the power everywhere, run on, check.

    again: as many of the restarts, by chance, are recorded and cut in their turn. most: end after so many states; 0
    visits all. Raises CutError for the first state that does not end well, whatever run or check raised.
    """
    rules = rules or Rules()
    report = Report()
    log = Log(start.copy())
    run(log.target, log.directory)
    chance = random.Random(rules.seed)  # noqa: S311 - the same every time
    kept: list[Cut] = []
    for number, cut in enumerate(cuts(log, rules)):
        if again and len(kept) < again:
            kept.append(Cut(cut.world.copy(), cut.event, cut.story))
        elif again and (place := chance.randrange(number + 1)) < again:
            kept[place] = Cut(cut.world.copy(), cut.event, cut.story)
        _go_on(cut, run, check)
        report.states += 1
        if most and report.states >= most:
            return report
    for first in kept:
        log = Log(first.world)
        run(log.target, log.directory)
        for cut in cuts(log, rules):
            _go_on(Cut(cut.world, cut.event, f"{first}, then again: {cut.story}"), run, check)
            report.states += 1
            report.cuts_in_restarts += 1
            if most and report.states >= most:
                return report
    return report


def _go_on(cut: Cut, run: Run, check: Check) -> None:
    try:
        run(cut.world.target, cut.world.directory)
        check(cut.world)
    except Exception as error:
        raise CutError(cut, error) from error


def cuts(log: Log, rules: Rules | None = None) -> Iterator[Cut]:
    """Every state that the rules ask for, each once; those that hold the latest write, as each write is made.

    Nothing at all, and nothing but what was there before, come first. The worlds are the caller's.
    """
    rules = rules or Rules()
    chance = random.Random(rules.seed)  # noqa: S311 - the same every time
    tape = _Tape(log.initial)
    yield tape.cut(0, (), 0, "nothing was done")
    for number, event in enumerate(log.events, start=1):
        before = len(tape.pending)
        tape.apply(event)
        if event.call == "write" and len(tape.pending) > before:
            names = len(tape.names)
            for pieces, story in _arrivals(tape.pending, rules, chance):
                yield tape.cut(number, pieces, names, story)
                if names and chance.random() < 0.5:
                    yield tape.cut(number, pieces, chance.randrange(names), story + ", names not yet")
        elif event.call in ("create", "replace", "remove"):
            yield tape.cut(number, tape.pending, len(tape.names), "the name is there")
            if tape.pending:
                yield tape.cut(number, (), len(tape.names), "the name is there, and no content")


def _arrivals(pending: Sequence[_Piece], rules: Rules, chance: random.Random) -> Iterator[tuple[list[_Piece], str]]:
    """What may have arrived of `pending`, of the last of which something has, in the order of the calls."""
    *earlier, latest = pending
    for others in _subsets(len(earlier), rules, chance):
        chosen = [earlier[position] for position in others]
        lost = len(earlier) - len(chosen)
        yield [*chosen, latest], f"{lost} of {len(pending)} pending writes lost"
    for story, torn in _torn(latest, rules, chance):
        yield [*earlier, *torn], f"the latest write {story}"
        if earlier:
            yield torn, f"the latest write {story}, all others lost"
            some = [piece for piece in earlier if chance.random() < 0.5]
            yield [*some, *torn], f"the latest write {story}, {len(earlier) - len(some)} others lost"
    if earlier:  # an earlier write torn, though later ones are there
        place = chance.randrange(len(earlier))
        for story, torn in _torn(earlier[place], rules, chance):
            yield [*earlier[:place], *torn, *earlier[place + 1 :], latest], f"write {place} of the pending ones {story}"


def _subsets(count: int, rules: Rules, chance: random.Random) -> Iterator[list[int]]:
    if count <= rules.exhaustive:
        for mask in range(1 << count):
            yield [position for position in range(count) if mask >> position & 1]
        return
    everything = list(range(count))
    yield everything
    yield []
    for position in everything:
        yield [position]
        yield everything[:position] + everything[position + 1 :]
        if position > 1:
            yield everything[:position]
    for _ in range(rules.chances):
        yield [position for position in everything if chance.random() < 0.5]


def _torn(piece: _Piece, rules: Rules, chance: random.Random) -> Iterator[tuple[str, list[_Piece]]]:
    """The write, up to a sector or from one on; and some of its sectors."""
    body, offset, data = piece
    if data is None:
        return
    first = SECTOR - offset % SECTOR  # sectors are those of the medium
    places = range(first, len(data), SECTOR)
    if not places:
        return
    for at in sorted(chance.sample(places, min(rules.tears, len(places)))):
        yield f"torn: its first {at} bytes", [_Piece(body, offset, data[:at])]
        yield f"torn: all but its first {at} bytes", [_Piece(body, offset + at, data[at:])]
    if len(places) > 1:
        bounds = [0, *places, len(data)]
        some = [number for number in range(len(bounds) - 1) if chance.random() < 0.5]
        parts = [_Piece(body, offset + bounds[n], data[bounds[n] : bounds[n + 1]]) for n in some]
        yield f"torn: {len(some)} of its {len(bounds) - 1} sectors", parts


@dataclass(slots=True)
class _Name:
    call: str
    old: str
    new: str
    body: int


@dataclass(slots=True)
class _Tape:
    """All media after some calls: what is durable, what is pending, and under which names."""

    initial: World
    durable: dict[int, bytearray] = field(default_factory=dict)
    pending: list[_Piece] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)  # durable names
    names: list[_Name] = field(default_factory=list)  # changes of names that are pending
    alias: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.durable[0] = bytearray(self.initial.target.content)
        for number, (name, medium) in enumerate(self.initial.directory.files.items(), start=1):
            self.durable[-number] = bytearray(medium.content)
            self.known[name] = -number

    def apply(self, event: Event) -> None:
        body = self.alias.get(event.body, event.body)
        if event.write is not None:
            self.pending.append(_Piece(body, event.write.offset, event.write.data))
        elif event.call == "sync":
            self.durable[body] = _with(self.durable[body], [piece for piece in self.pending if piece.body == body])
            self.pending = [piece for piece in self.pending if piece.body != body]
        elif event.call == "sync_directory":
            self.known, self.names = self.visible(len(self.names)), []
        elif event.call == "open":
            self.alias[event.body] = self.visible(len(self.names))[event.old]
        else:
            if event.call == "create":
                self.durable[event.body] = bytearray()
            self.names.append(_Name(event.call, event.old, event.new, event.body))

    def visible(self, count: int) -> dict[str, int]:
        """Names to media, after the first `count` of the pending changes."""
        found = dict(self.known)
        for change in self.names[:count]:
            if change.call == "create":
                found[change.old] = change.body
            elif change.call == "replace":
                found[change.new] = found.pop(change.old)
            else:
                found.pop(change.old, None)
        return found

    def cut(self, event: int, pieces: Sequence[_Piece], names: int, story: str) -> Cut:
        by_body: dict[int, list[_Piece]] = {}
        for piece in pieces:
            by_body.setdefault(piece.body, []).append(piece)
        target = MemoryMedium(name=self.initial.target.name, device=not self.initial.target.sparse)
        target.content = _with(self.durable[0], by_body.get(0, ()))
        files = {}
        for name, body in self.visible(names).items():
            files[name] = MemoryMedium(name=name)
            files[name].content = _with(self.durable[body], by_body.get(body, ()))
        return Cut(World(target, MemoryDirectory(files)), event, story)


def _with(content: bytearray, pieces: Sequence[_Piece]) -> bytearray:
    """A copy of `content` after these writes."""
    content = bytearray(content)
    for _, offset, data in pieces:
        if data is None:
            content[:] = content[:offset] + bytes(max(offset - len(content), 0))
            continue
        if offset > len(content):
            content += bytes(offset - len(content))
        content[offset : offset + len(data)] = data
    return content
