# SPDX-License-Identifier: Apache-2.0
"""The process behind a mount: how it is asked, how it is told to end, and how it is kept alive."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from regraft.blockdev import records
from regraft.blockdev.mounts import Faults, Mount
from regraft.errors import BusyError, RegraftError, tree

_TICK = 1.0  # seconds between two looks at the connections
_BREATH = 0.2  # seconds until a question is heard again that the system had no room for
_ASK_TIME = 20.0
_PR_SET_IO_FLUSHER = 57  # linux/prctl.h, since 5.6
_MCL_CURRENT, _MCL_FUTURE = 1, 2  # sys/mman.h


def as_fields(error: RegraftError) -> dict[str, Any]:
    """An error for another process."""
    return {"status": error.exit_status, "cause": str(error), "cure": error.cure}


def as_error(fields: dict[str, Any]) -> RegraftError:
    """An error of another process."""
    kinds = {kind.exit_status: kind for kind in tree()}
    kind = kinds.get(fields.get("status", 1), RegraftError)
    try:
        return kind(str(fields.get("cause", "")), cure=str(fields.get("cure", "")))
    except TypeError:  # it has more to say than its cause
        return RegraftError(str(fields.get("cause", "")), cure=str(fields.get("cure", "")))


class Control:
    """Answers what is asked of a mount at its socket, in a thread: its state, to detach, to hand over."""

    def __init__(self, mount: Mount, wake: threading.Event, faults: Faults) -> None:
        """`wake` is set when the daemon may end. Raises MountError."""
        self._mount, self._wake, self._faults = mount, wake, faults
        self.handed_over = False
        self.detached = False
        self._listener = records.listen(mount.record.stem)
        self._thread = threading.Thread(target=self._accept, name="regraft-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                    return  # closed
                time.sleep(_BREATH)
                continue
            with line, suppress(OSError):
                line.settimeout(_ASK_TIME)
                self._answer(line)

    def _answer(self, line: socket.socket) -> None:
        try:
            asked = records.hear(line)
            question = asked.get("ask")
            if question == "status":
                records.say(line, {"status": self._mount.status()})
            elif question == "detach":
                self._mount.detach(force=asked.get("force") is True)
                self.detached = True
                records.say(line, {"detached": True})
                self._wake.set()
            elif question == "hand-over":
                self._mount.hand_over(line)
                self.handed_over = True
                self._wake.set()
            elif isinstance(question, str) and (answer := self._mount.answer(question)) is not None:
                records.say(line, answer)
                self._wake.set()
            else:
                records.say(line, {"error": {"status": 1, "cause": f"nobody knows {question!r}", "cure": ""}})
        except RegraftError as error:
            records.say(line, {"error": as_fields(error)})
        except OSError:
            raise  # whoever asked is gone
        except Exception as error:  # without this thread the mount could neither be asked nor detached
            self._faults.report(f"an answer failed: {error!r}")
            records.say(line, {"error": as_fields(RegraftError(f"the daemon failed to answer: {error!r}"))})


def serve(mount: Mount, control: Control, wake: threading.Event, faults: Faults) -> None:
    """Keep a mount up until it is detached, handed over, or taken away by others. For the main thread.

    SIGTERM and SIGINT detach it; while it is used they do nothing but to say so.
    """
    asked = threading.Event()

    def end(*_: object) -> None:
        asked.set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.environ.get("NOTIFY_SOCKET"):
        notify(f"READY=1\nSTATUS=serves {mount.record.target}")
    while True:
        wake.wait(_TICK)
        wake.clear()
        if control.handed_over:
            break
        if asked.is_set():
            asked.clear()
            try:
                mount.detach()
            except BusyError as error:
                faults.report(f"asked to end, but goes on: {error}")
            except RegraftError as error:
                faults.report(str(error))
            else:
                control.detached = True
        if control.detached or not mount.tend():
            break
    control.close()
    if not control.handed_over and not mount.keeps_record:
        with suppress(RegraftError):
            records.remove(mount.record.stem)


def notify(state: str) -> None:
    """Tell the service manager (sd_notify(3)); nothing happens without one."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = f"\0{path[1:]}" if path[0] == "@" else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), address)


def harden(*, lock: bool = False, initrd: bool = False) -> None:
    """Make this process one that a busy machine does not end or starve; what is not allowed is left out.

    It is the last that the kernel kills for memory, and its own allocations never wait for I/O that waits for it. lock:
    it stays in memory whole. initrd: it gets the mark by which systemd spares it when it changes the root
    (https://systemd.io/ROOT_STORAGE_DAEMONS/): `@` as the first character of its command line.
    """
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)
    if lock:
        libc.mlockall(_MCL_CURRENT | _MCL_FUTURE)
    if initrd:
        _mark()


def _mark() -> None:
    """The command line lies in our own memory, where proc(5) says (/proc/pid/stat, field 48)."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            address = int(file.read().rpartition(")")[2].split()[45])
        if address:
            ctypes.memset(address, ord("@"), 1)


def in_background(work: Callable[[Callable[[dict[str, Any]], None]], None]) -> dict[str, Any]:
    """Have a process of its own session do `work`, which calls its argument with some fields once all is ready.

    Returns these fields, while the process lives on, with / as its folder. Raises what it failed with before that.
    """
    import json

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            status = _live(work, writing)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    try:
        fields = json.loads(said)
    except ValueError:
        _, code = os.waitpid(child, 0)
        raise RegraftError(f"the daemon ended without a word (status {code})") from None
    if "error" in fields:
        os.waitpid(child, 0)
        raise as_error(fields["error"])
    found: dict[str, Any] = fields["ready"]
    return found


def _live(work: Callable[[Callable[[dict[str, Any]], None]], None], pipe: int) -> int:
    import json

    ready = False

    def announce(fields: dict[str, Any]) -> None:
        nonlocal ready
        ready = True
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)
        os.write(pipe, json.dumps({"ready": fields}).encode())
        os.close(pipe)

    os.setsid()
    try:
        work(announce)
    except RegraftError as error:
        failed = error
    except Exception as error:
        failed = RegraftError(f"the daemon failed: {error!r}")
    else:
        return 0
    if not ready:
        os.write(pipe, json.dumps({"error": as_fields(failed)}).encode())
    return failed.exit_status
