# SPDX-License-Identifier: Apache-2.0
"""Reads that may wait for a peer: answered by other threads, in any order, so that nothing waits behind them.

The NBD protocol lets a server answer in any order, and mix the chunks of several structured replies; one message must
be sent in one piece (doc/proto.md, "Ordering of messages and writes", "Structured reply chunk message").
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Condition, RLock, local

from regraft.blockdev.export import SlowExport
from regraft.blockdev.nbd.exports import Session
from regraft.blockdev.nbd.protocol import Command, Error, Request
from regraft.blockdev.nbd.replies import Replies, reply_buffer
from regraft.blockdev.nbd.requests import judge
from regraft.engine.threads import DaemonPool
from regraft.errors import RegraftError
from regraft.limits import DEFAULT, Limits

_TICK = 0.2  # seconds between two looks at whether there is a hurry


class Workers:
    """The threads for slow reads of all clients of a server, and a buffer for each."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._pool = DaemonPool(limits.nbd_workers, "regraft-nbd-worker")
        self._limits = limits
        self._local = local()

    def submit(self, work: Callable[[bytearray], None]) -> None:
        """Have `work` done with a buffer for its replies. Raises RuntimeError if no thread can be had."""
        self._pool.submit(self._run, work)

    def close(self) -> None:
        self._pool.close()

    def _run(self, work: Callable[[bytearray], None]) -> None:
        buffer = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = reply_buffer(self._limits)
        work(buffer)


@dataclass(eq=False, slots=True)
class _Read:
    """One slow read. Once its answer has begun to be sent it must be finished; until then it can be taken back."""

    request: Request
    begun: bool = False
    void: bool = False


class _TakenBackError(Exception):
    """Nobody wants this answer from us any more."""


class SlowReads:
    """Those of one client. `set_aside` and `settle` are called by the thread of its connection.

    `send` sends a whole buffer; all who send to this client do so under `line`. `broken` is called, from any thread,
    when an answer could not be finished: the connection is then of no use. `hurried` tells whether the client's thread
    must not be held up, even if it asks for too much.
    """

    def __init__(
        self,
        session: Session,
        export: SlowExport,
        workers: Workers,
        *,
        send: Callable[[memoryview], None],
        report: Callable[[RegraftError], None],
        broken: Callable[[BaseException], None],
        hurried: Callable[[], bool] = lambda: False,
        limits: Limits = DEFAULT,
    ) -> None:
        self.line = RLock()
        self._session, self._export, self._workers = session, export, workers
        self._send, self._report, self._broken, self._hurried = send, report, broken, hurried
        self._limits = limits
        self._changed = Condition()
        self._waiting: deque[_Read] = deque()
        self._active: set[_Read] = set()
        self._closed = False

    def set_aside(self, batch: Sequence[Request]) -> list[Request]:
        """Begin the reads that may be slow; gives back the requests that can be answered at once."""
        now: list[Request] = []
        for request in batch:
            if self._is_slow(request):
                self._enqueue(request)
            else:
                now.append(request)
        return now

    def _is_slow(self, request: Request) -> bool:
        return (
            request[2] == Command.READ
            and judge(self._session, request, limits=self._limits) == Error.OK
            and not self._export.ready(request[4], request[5])
        )

    def _enqueue(self, request: Request) -> None:
        with self._changed:
            # A client that asks for more than this waits; nothing is lost, it is only not read from.
            while len(self._waiting) + len(self._active) >= self._limits.nbd_pending and not self._hurried():
                self._changed.wait(_TICK)
            if self._closed:
                return  # the connection is of no use any more
            self._waiting.append(_Read(request))
            self._dispatch()

    def _dispatch(self) -> None:
        """Give work to the workers, as much as one client may have there."""
        while self._waiting and len(self._active) < self._limits.nbd_slow_reads:
            read = self._waiting.popleft()
            self._active.add(read)
            try:
                self._workers.submit(partial(self._work, read))
            except RuntimeError as error:  # no thread can be had: nobody would ever answer this, nor what waits behind
                self._closed = True
                self._active.discard(read)
                self._waiting.clear()
                self._changed.notify_all()
                self._broken(error)

    def _work(self, read: _Read, buffer: bytearray) -> None:
        try:
            if not read.void:
                self._answer(read, buffer)
        except _TakenBackError:
            pass
        except BaseException as error:
            self._broken(error)
        finally:
            with self._changed:
                self._active.discard(read)
                if not self._closed:
                    self._dispatch()
                self._changed.notify_all()

    def _answer(self, read: _Read, buffer: bytearray) -> None:
        def send(view: memoryview) -> None:
            self._begin(read)
            with self.line:
                self._send(view)

        replies = Replies(
            self._session, send, self._report, alone=lambda: self.line, buffer=buffer, limits=self._limits
        )
        replies.answer([read.request])

    def _begin(self, read: _Read) -> None:
        with self._changed:
            if read.void:
                raise _TakenBackError
            read.begun = True

    def finish(self, deadline: float) -> bool:
        """Wait until all is answered, at most until `deadline` (monotonic seconds); whether it is."""
        with self._changed:
            while self._waiting or self._active:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return False
                self._changed.wait(min(rest, 1e6))
            return True

    def take_back(self, deadline: float) -> list[Request] | None:
        """Stop; gives the requests whose answers were not begun, in order. Those that were are waited for.

        None if they did not end by `deadline` (monotonic seconds): the client is then in the middle of a message.
        """
        with self._changed:
            self._closed = True
            found = [read for read in self._active if not read.begun]
            for read in found:
                read.void = True
            found += self._waiting
            self._waiting.clear()
            self._changed.notify_all()
            while any(read.begun for read in self._active):
                rest = deadline - time.monotonic()
                if rest <= 0:
                    return None
                self._changed.wait(min(rest, 1e6))
        return [read.request for read in found]
