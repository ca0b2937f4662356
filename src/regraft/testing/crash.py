# SPDX-License-Identifier: Apache-2.0
"""The crash laboratory: record what a run does to its media, then visit every state that a power cut could leave.

The model is that of `regraft.engine.medium`: a write is durable after a later sync of its medium, a name after a later
sync of the directory. Between two syncs any of the writes may be lost or torn at 512 bytes, and names take effect in
order, up to any point.

    world = World(target=MemoryMedium(old, device=True))
    log = Log(world)
    run(log.target, log.directory)              # the code under test, on recording media
    for state in log.states():                  # one World per possible power cut
        run_again(state.target, state.directory)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import NamedTuple

from regraft.engine.medium import Lock, Medium
from regraft.model.buffers import Buffer
from regraft.testing.memory import MemoryDirectory, MemoryMedium

__all__ = ["Event", "Log", "MemoryDirectory", "World"]

SECTOR = 512


@dataclass(slots=True)
class World:
    """All that survives a power cut: a target, if there is one, and a directory: of its state, or a chunk store."""

    target: MemoryMedium = field(default_factory=MemoryMedium)
    directory: MemoryDirectory = field(default_factory=MemoryDirectory)

    def copy(self) -> World:
        files = {name: MemoryMedium(medium.content, name=name) for name, medium in self.directory.files.items()}
        target = MemoryMedium(self.target.content, name=self.target.name, device=not self.target.sparse)
        return World(target, MemoryDirectory(files))


class _Write(NamedTuple):
    """A change of a medium's content: bytes at an offset, or (data None) a new size in `offset`."""

    offset: int
    data: bytes | None


@dataclass(slots=True)
class _Body:
    """A medium's content: what is durable, and what was done since."""

    durable: bytearray
    pending: list[_Write] = field(default_factory=list)


class Event(NamedTuple):
    """One recorded call. `body` numbers the medium (0: the target); names belong to directory calls."""

    call: str
    body: int = -1
    write: _Write | None = None
    old: str = ""
    new: str = ""


class Log:
    """Records a run. Give `target` and `directory` to the code under test, from any of its threads."""

    def __init__(self, world: World) -> None:
        self._initial = world.copy()
        #: Held while a call is made and recorded, so that the order of events is that of the calls.
        self.lock = RLock()
        self.events: list[Event] = []
        self._bodies = 1
        self.target = _RecordingMedium(self, world.target, 0)
        self.directory = _RecordingDirectory(self, world.directory)

    @property
    def initial(self) -> World:
        """What there was before the run; not to be changed."""
        return self._initial

    def new_body(self) -> int:
        """A number for a medium that is opened or created."""
        self._bodies += 1
        return self._bodies - 1

    def states(self) -> Iterator[World]:
        """Every distinct state after a power cut at any point of the recorded run, the undisturbed end included."""
        seen: set[int] = set()
        for stop in range(len(self.events) + 1):
            for world in self._states_at(stop):
                mark = hash(
                    (
                        bytes(world.target.content),
                        tuple(sorted((name, bytes(m.content)) for name, m in world.directory.files.items())),
                    )
                )
                if mark not in seen:
                    seen.add(mark)
                    yield world

    def _states_at(self, stop: int) -> Iterator[World]:
        replay = _Replay(self._initial)
        for event in self.events[:stop]:
            replay.apply(event)
        for names in range(len(replay.pending_names) + 1):
            variants = {number: list(_contents(body)) for number, body in replay.bodies.items()}
            # Every variant of each medium, the others complete; and all media at their oldest.
            yield replay.world({number: contents[0] for number, contents in variants.items()}, names)
            for number, contents in variants.items():
                for content in contents[1:]:
                    chosen = {other: full[-1] for other, full in variants.items()}
                    chosen[number] = content
                    yield replay.world(chosen, names)


def _contents(body: _Body) -> Iterator[bytearray]:
    """What a medium can hold after a cut: nothing of the pending writes first, all of them last."""
    pending = body.pending
    yield _applied(body.durable, [])
    for lost in range(len(pending)):
        yield _applied(body.durable, [w for i, w in enumerate(pending) if i != lost])  # one was lost
        yield _applied(body.durable, [pending[lost]])  # only one arrived
        data = pending[lost].data
        if data is not None and len(data) > 1:
            for cut in {SECTOR, len(data) // 2 // SECTOR * SECTOR, (len(data) - 1) // SECTOR * SECTOR} - {0}:
                torn = [*pending[:lost], _Write(pending[lost].offset, data[:cut])]
                yield _applied(body.durable, torn)
                yield _applied(body.durable, [*pending[:lost], _Write(pending[lost].offset + cut, data[cut:])])
    yield _applied(body.durable, pending)


def _applied(durable: bytearray, writes: list[_Write]) -> bytearray:
    content = MemoryMedium(durable)
    for offset, data in writes:
        if data is None:
            content.resize(offset)
        else:
            content.write(offset, data)
    return content.content


class _Replay:
    """The media as they are after some events, durable and pending apart."""

    def __init__(self, initial: World) -> None:
        self._target = initial.target
        self.bodies = {0: _Body(bytearray(initial.target.content))}
        self.durable_names: dict[str, int] = {}
        for number, (name, medium) in enumerate(initial.directory.files.items(), start=1):
            self.bodies[-number] = _Body(bytearray(medium.content))
            self.durable_names[name] = -number
        self.pending_names: list[Event] = []
        self._alias: dict[int, int] = {}

    def apply(self, event: Event) -> None:
        if event.call == "write" and event.write is not None:
            self._body(event.body).pending.append(event.write)
        elif event.call == "sync":
            body = self._body(event.body)
            body.durable, body.pending = _applied(body.durable, body.pending), []
        elif event.call == "sync_directory":
            self.durable_names, self.pending_names = self._names(len(self.pending_names)), []
        elif event.call == "open":
            self._alias[event.body] = self._names(len(self.pending_names))[event.old]
        else:
            if event.call == "create":
                self.bodies[event.body] = _Body(bytearray())
            self.pending_names.append(event)

    def _body(self, number: int) -> _Body:
        return self.bodies[self._alias.get(number, number)]

    def _names(self, count: int) -> dict[str, int]:
        names = dict(self.durable_names)
        for event in self.pending_names[:count]:
            if event.call == "create":
                names[event.old] = event.body
            elif event.call == "replace":
                names[event.new] = names.pop(event.old)
            else:
                names.pop(event.old, None)
        return names

    def world(self, contents: dict[int, bytearray], names: int) -> World:
        files = {name: MemoryMedium(contents[number], name=name) for name, number in self._names(names).items()}
        target = MemoryMedium(contents[0], name=self._target.name, device=not self._target.sparse)
        return World(target, MemoryDirectory(files))


class _RecordingMedium:
    """Passes everything on and records what changes the medium."""

    def __init__(self, log: Log, inner: Medium, body: int) -> None:
        self._log, self._inner, self._body = log, inner, body

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def sparse(self) -> bool:
        return self._inner.sparse

    def read_into(self, offset: int, view: memoryview) -> int:
        return self._inner.read_into(offset, view)

    def write(self, offset: int, data: Buffer) -> None:
        with self._log.lock:
            self._log.events.append(Event("write", self._body, _Write(offset, bytes(data))))
            self._inner.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        if length > 0:
            self.write(offset, bytes(length))

    def resize(self, size: int) -> None:
        with self._log.lock:
            if self._inner.sparse:
                self._log.events.append(Event("write", self._body, _Write(size, None)))
            self._inner.resize(size)

    def sync(self) -> None:
        with self._log.lock:
            self._inner.sync()
            self._log.events.append(Event("sync", self._body))

    def forget(self) -> None: ...
    def close(self) -> None: ...


class _RecordingDirectory:
    """Passes everything on and records what changes names; the media it gives record too."""

    def __init__(self, log: Log, inner: MemoryDirectory) -> None:
        self._log, self._inner = log, inner

    @property
    def path(self) -> str:
        return self._inner.path

    def exists(self, name: str) -> bool:
        return self._inner.exists(name)

    def names(self) -> list[str]:
        return self._inner.names()

    def free_space(self) -> int:
        return self._inner.free_space()

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Lock:
        return self._inner.lock(name, shared=shared, wait=wait)

    def open(self, name: str) -> Medium:
        inner = self._inner.open(name)
        body = self._log.new_body()
        self._log.events.append(Event("open", body, old=name))
        return _RecordingMedium(self._log, inner, body)

    def create(self, name: str) -> Medium:
        body = self._log.new_body()
        self._log.events.append(Event("create", body, old=name))
        self._inner.remove(name)
        return _RecordingMedium(self._log, self._inner.create(name), body)

    def replace(self, old: str, new: str) -> None:
        self._log.events.append(Event("replace", old=old, new=new))
        self._inner.replace(old, new)

    def remove(self, name: str) -> None:
        self._log.events.append(Event("remove", old=name))
        self._inner.remove(name)

    def sync_directory(self) -> None:
        self._log.events.append(Event("sync_directory"))
        self._inner.sync_directory()
