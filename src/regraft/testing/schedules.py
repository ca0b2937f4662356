# SPDX-License-Identifier: Apache-2.0
"""Concurrent processes on one folder in memory, one call at a time, in an order that a number determines.

Each actor is a function of a directory, run by a thread of its own; only one thread runs at any time. At every call on
the directory or its media, chance decides who goes on. The same seed makes the same order.

    order = Schedule(directory, seed=7)
    order.actor(lambda directory: clone_into(directory))
    order.actor(lambda directory: collect(directory))
    order.run()                                   # raises what an actor raised

What an actor's function does in threads of its own is not scheduled: give it one thread, or none.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Thread
from typing import Any, ParamSpec, TypeVar

from regraft.engine.medium import Directory
from regraft.testing.hooks import HookedDirectory

P = ParamSpec("P")
T = TypeVar("T")


class DeadlockError(Exception):
    """Every actor waits for a lock."""


class Inline:
    """In the place of a thread pool: does at once what is submitted."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> Inline:  # noqa: PYI034 - not meant for subclasses
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:  # as a pool does
            future.set_exception(error)
        return future


class _Actor:
    def __init__(self, schedule: Schedule, work: Callable[[Directory], object]) -> None:
        self._schedule, self._work = schedule, work
        self.turn, self.over, self.waiting = Event(), False, False
        self.error: BaseException | None = None
        self.result: Any = None
        self.thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.turn.wait()
        try:
            self.result = self._work(HookedDirectory(self._schedule.directory, self._hook))
        except BaseException as error:
            self.error = error
        self.over = True
        self._schedule.pass_on(self)

    def _hook(self, call: str, _name: str) -> None:
        self._schedule.steps += 1
        self.waiting = call == "wait"
        self._schedule.pass_on(self)
        if self._schedule.broken:
            raise DeadlockError("every actor waits")


class Schedule:
    """A run of actors. `order`: the number of the actor at each step in which somebody else went on."""

    def __init__(self, directory: Directory, *, seed: int) -> None:
        self.directory = directory
        self._chance = random.Random(seed)  # noqa: S311 - it is to be repeatable
        self._actors: list[_Actor] = []
        self._done = Event()
        self.steps = 0
        self.broken = False
        self.order: list[int] = []
        self._stubborn = self._chance.choice((0.0, 0.5, 0.9, 0.97))  # how likely the same actor goes on

    def actor(self, work: Callable[[Directory], object]) -> None:
        self._actors.append(_Actor(self, work))

    def run(self) -> list[Any]:
        """The results of the actors, in their order. Raises the first error of one."""
        for actor in self._actors:
            actor.thread.start()
        self._choose(None).turn.set()
        self._done.wait()
        for actor in self._actors:
            actor.thread.join()
        for actor in self._actors:
            if actor.error is not None:
                raise actor.error
        return [actor.result for actor in self._actors]

    def pass_on(self, actor: _Actor) -> None:
        """Called by the actor whose turn it is: let chance say who is next."""
        if all(other.over for other in self._actors):
            self._done.set()
            return
        following = self._choose(actor)
        if following is actor:
            return
        actor.turn.clear()
        following.turn.set()
        if not actor.over:
            actor.turn.wait()

    def _choose(self, actor: _Actor | None) -> _Actor:
        alive = [other for other in self._actors if not other.over]
        if actor is not None and not actor.over and not actor.waiting:
            for other in alive:
                other.waiting = False  # what it did may have freed a lock
            if self._chance.random() < self._stubborn:
                return actor
        ready = [other for other in alive if not other.waiting]
        if not ready:
            if actor is not None and actor.over:
                for other in alive:
                    other.waiting = False
            else:
                self.broken = True
            ready = alive
        following = self._chance.choice(ready)
        self.order.append(self._actors.index(following))
        return following
