# SPDX-License-Identifier: Apache-2.0
"""One client: its socket, and the thread that serves it from the greeting to the end."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from enum import Enum

from regraft.blockdev.export import SlowExport
from regraft.blockdev.nbd.exports import Exports, Session
from regraft.blockdev.nbd.handshake import Handshake, State
from regraft.blockdev.nbd.protocol import Request
from regraft.blockdev.nbd.replies import BrokenReplyError, Replies
from regraft.blockdev.nbd.requests import Remains, Requests
from regraft.blockdev.nbd.slow import SlowReads, Workers
from regraft.errors import FormatError, RegraftError
from regraft.limits import DEFAULT, Limits

_TICK = 0.2  # seconds between two looks at what was asked of the thread, when the client is silent
_LINGER = 1.0  # seconds for a client to take the last answers
_MARGIN = 0.5  # seconds that are left, of those given, when slow reads are waited for no longer
_TIMEVAL = struct.Struct("@ll")
_SOCKET_BUFFER = 1 << 20
_LOOKS = 40  # for the next request, some 50 µs, before the thread sleeps: to be woken costs more than that
_HOPE = 16  # looks in vain that one success makes good; then only each so manyth receive looks
_HANDSHAKE_RECEIVED = 4096
_OF_FILES = (errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW, errno.ENOMEM)  # errors that are not the socket's


class Asked(Enum):
    """What the server wants of a connection."""

    SERVE = "serve"
    STOP = "stop"  #: answer what was received, refuse what comes, close
    REST = "rest"  #: answer what was received, leave the socket open and its state behind


class _GoneError(Exception):
    """The client has closed, or the time for it is over."""


class Connection:
    """Serves one client in `run`, until it leaves or `ask` says otherwise. Closes the socket, unless it came to rest.

    `report` is called with a sentence for each fault of the client and each read that failed.
    """

    def __init__(
        self,
        client: socket.socket,
        exports: Exports,
        *,
        tls: ssl.SSLContext | None = None,
        workers: Workers | None = None,
        report: Callable[[str], None] = lambda _: None,
        limits: Limits = DEFAULT,
        session: Session | None = None,
        remains: Remains | None = None,
    ) -> None:
        """With a `session` the client is taken to be in transmission, in the middle of what `remains` says.

        Without `workers`, a read that waits for a peer holds up those behind it.
        """
        self.session = session
        self.remains = remains or Remains()
        self.resting = False
        self._socket = client
        self._exports = exports
        self._tls = tls
        self._workers = workers
        self._slow: SlowReads | None = None
        self._report = report
        self._limits = limits
        self._asked = Asked.SERVE
        self._deadline = self._handshake_end = float("inf")  # monotonic seconds
        # On a single core, looking would only keep the client from asking.
        self._looks = _LOOKS if tls is None and len(os.sched_getaffinity(0)) > 1 else 0
        self._hope = 0
        self._prepare()

    @property
    def socket(self) -> socket.socket:
        return self._socket

    @property
    def movable(self) -> bool:
        """Whether it can go on in another process: not within TLS, and not before transmission has begun."""
        return self.session is not None and not isinstance(self._socket, ssl.SSLSocket)

    def ask(self, asked: Asked, deadline: float = float("inf")) -> None:
        """Have the thread stop, rest, or go on, before `deadline` (monotonic seconds). It notices within a moment."""
        self._deadline, self._asked = deadline, asked

    def abort(self) -> None:
        """Cut the line, whatever the thread is doing."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serve the client. Raises nothing that a client can cause."""
        self.resting = False
        try:
            if self.session is None:
                self.session = self._shake_hands()
            self._transmit(self.session)
        except (_GoneError, BrokenPipeError, ConnectionResetError):
            pass  # clients may leave as they like
        except (FormatError, BrokenReplyError) as error:
            self._report(str(error))
        except OSError as error:  # ssl.SSLError is one too
            self._report(f"the connection failed: {error.strerror or error}")
        finally:
            if not self.resting:
                self._close()

    def _close(self) -> None:
        slow, self._slow = self._slow, None
        if slow is None:
            self._socket.close()
            return
        slow.take_back(0.0)
        self.abort()  # who is sending now fails at once
        with slow.line:  # a descriptor that is closed under a sender might be somebody else's by then
            self._socket.close()

    def _prepare(self) -> None:
        with suppress(OSError):  # each is an improvement, not a need
            if self._socket.family == socket.AF_UNIX:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            else:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # Time-outs of the kernel spare a poll() before every receive, which Python's own would make.
        self._socket.settimeout(None)
        tick = _TIMEVAL.pack(int(_TICK), int(_TICK % 1 * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tick)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tick)

    def _receive(self, view: memoryview) -> int:
        """How many bytes came; 0 at a tick. Raises _GoneError when the client has closed."""
        if self._slow is not None and isinstance(self._socket, ssl.SSLSocket):
            return self._receive_between(self._slow, self._socket, view)
        return self._receive_now(view)

    def _receive_between(self, slow: SlowReads, line: ssl.SSLSocket, view: memoryview) -> int:
        """Receive while others send: a TLS session is not to be used by two threads at once."""
        if not line.pending():
            poll = select.poll()
            poll.register(line.fileno(), select.POLLIN)
            if not poll.poll(_TICK * 1000):
                return 0
        with slow.line:
            return self._receive_now(view)

    def _receive_now(self, view: memoryview) -> int:
        try:
            count = self._look(view) or self._socket.recv_into(view)
        except (BlockingIOError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and error.errno is not None:
                raise  # the network's, not a tick
            return 0
        if not count:
            raise _GoneError
        return count

    def _look(self, view: memoryview) -> int:
        """How many bytes came within a moment, without going to sleep; 0 if none, or if looking was not worth it."""
        self._hope -= 1
        if self._hope < 0 and self._hope % _HOPE:
            return 0
        for _ in range(self._looks):
            try:
                count = self._socket.recv_into(view, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            self._hope = _HOPE
            return count  # 0 at the end, which the receive that follows will see again
        return 0

    def _send(self, view: memoryview) -> None:
        done, size = 0, len(view)
        while done < size:
            try:
                done += self._socket.send(view[done:] if done else view)
            except (BlockingIOError, TimeoutError) as error:
                if isinstance(error, TimeoutError) and error.errno is not None:
                    raise
                self._check_time()

    def _send_file(self, descriptor: int, offset: int, count: int) -> int:
        """How many bytes could be sent; fewer if the file is not as long, cannot be read, or not be sent this way."""
        done = 0
        while done < count:
            try:
                sent = os.sendfile(self._socket.fileno(), descriptor, offset + done, count - done)
            except BlockingIOError:
                self._check_time()
                continue
            except OSError as error:
                if error.errno in _OF_FILES:
                    break
                raise
            if not sent:
                break
            done += sent
        return done

    def _check_time(self) -> None:
        if time.monotonic() > min(self._deadline, self._handshake_end):
            raise _GoneError

    def _shake_hands(self) -> Session:
        self._handshake_end = time.monotonic() + self._limits.nbd_handshake_time
        handshake = Handshake(self._exports, tls=self._tls is not None, limits=self._limits)
        self._send(memoryview(handshake.greeting))
        buffer = memoryview(bytearray(_HANDSHAKE_RECEIVED))
        while True:
            if self._asked is not Asked.SERVE:
                raise _GoneError  # nothing is lost: the client has no disk yet
            if time.monotonic() > self._handshake_end:
                raise FormatError(f"no export chosen within {self._limits.nbd_handshake_time:g} s")
            handshake.feed(buffer[: self._receive(buffer)])
            while (answer := handshake.answer()) is not None:
                self._send(memoryview(answer))
            if handshake.state is State.UPGRADE:
                handshake = handshake.upgraded()
                self._start_tls()
            elif handshake.state is State.CLOSE:
                raise FormatError(handshake.reason) if handshake.reason else _GoneError
            elif handshake.state is State.TRANSMIT:
                self._handshake_end = float("inf")
                self.remains = Remains(handshake.rest)
                return handshake.session

    def _start_tls(self) -> None:
        if self._tls is None:
            raise FormatError("STARTTLS without TLS")
        # The whole handshake of TLS within the time that is left, not each step of it.
        self._socket = self._tls.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket.settimeout(max(_TICK, self._handshake_end - time.monotonic()))
        self._socket.do_handshake()
        self._socket.settimeout(_TICK)

    def _transmit(self, session: Session) -> None:
        send_file = None if isinstance(self._socket, ssl.SSLSocket) else self._send_file
        slow = self._slow = self._slow_reads(session)
        replies = Replies(
            session,
            self._send if slow is None else self._send_alone,
            self._report_failure,
            send_file=send_file,
            alone=nullcontext if slow is None else lambda: slow.line,
            limits=self._limits,
        )
        requests = Requests(Remains(b"", self.remains.skip, self.remains.write), limits=self._limits)
        going_on = self._serve(replies, requests, list(self.remains.unanswered))
        early = self.remains.header  # of a client that did not wait, perhaps many requests
        while early and going_on:
            room = requests.room
            count = min(len(room), len(early))
            room[:count] = early[:count]
            early = early[count:]
            going_on = self._serve(replies, requests, requests.take(count))
        serving = Asked.SERVE  # members of an enumeration are slow to look up
        receive = self._receive_now if slow is None else self._receive
        while going_on and self._asked is serving:
            count = receive(requests.room)
            if count:
                going_on = self._serve(replies, requests, requests.take(count))
        if not going_on:
            self._await_slow_reads()
        elif self._asked is Asked.REST and self.movable:
            self._rest(requests)
        else:
            self._say_goodbye(replies, requests)

    def _slow_reads(self, session: Session) -> SlowReads | None:
        if self._workers is None or not isinstance(session.export, SlowExport):
            return None
        return SlowReads(
            session,
            session.export,
            self._workers,
            send=self._send,
            report=self._report_failure,
            broken=self._break,
            hurried=lambda: self._asked is not Asked.SERVE,
            limits=self._limits,
        )

    def _serve(self, replies: Replies, requests: Requests, batch: list[Request]) -> bool:
        """Answer, or begin to; False if the client has said good-bye."""
        if batch and self._slow is not None:
            batch = self._slow.set_aside(batch)
        if batch and not replies.answer(batch):
            return False
        if requests.fault:
            raise FormatError(requests.fault)
        return True

    def _send_alone(self, view: memoryview) -> None:
        with self._slow.line if self._slow is not None else nullcontext():
            self._send(view)

    def _break(self, error: BaseException) -> None:
        """An answer could not be finished by another thread: what follows would make no sense to the client."""
        if not isinstance(error, _GoneError | OSError):
            self._report(str(error) if isinstance(error, BrokenReplyError) else f"a read failed: {error!r}")
        self.abort()

    def _await_slow_reads(self) -> None:
        """Until all is answered or there is a hurry. The client has said that it asks for no more."""
        while self._slow is not None and not self._slow.finish(time.monotonic() + _TICK):
            if self._asked is not Asked.SERVE:
                self._slow.finish(self._deadline - _MARGIN)
                return

    def _rest(self, requests: Requests) -> None:
        """Leave all behind that the next one needs to go on; what is sent already must be sent to its end."""
        slow, self._slow = self._slow, None
        unanswered = slow.take_back(self._deadline - _MARGIN) if slow is not None else []
        if unanswered is None:
            self._slow = slow
            raise FormatError("the client did not take an answer in time")
        self.remains = replace(requests.remains, unanswered=tuple(unanswered))
        self.resting = True

    def _say_goodbye(self, replies: Replies, requests: Requests) -> None:
        """Refuse what has come meanwhile, and let the client read all answers before the line is cut."""
        if self._slow is not None and not self._slow.finish(self._deadline - _MARGIN):
            replies.refuse(self._slow.take_back(self._deadline) or [])
        end = min(self._deadline, time.monotonic() + _LINGER)
        count = self._receive(requests.room)
        if count:
            replies.refuse(requests.take(count))
        self._socket.shutdown(socket.SHUT_WR)
        scrap = memoryview(bytearray(_HANDSHAKE_RECEIVED))
        while time.monotonic() < end:
            self._receive(scrap)

    def _report_failure(self, error: RegraftError) -> None:
        self._report(str(error))
