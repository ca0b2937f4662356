# SPDX-License-Identifier: Apache-2.0
"""The guest's first process: makes the device usable, then runs what the host asks for and says how it ended.

Host and agent speak JSON, a line a message, over a virtio serial port:

    {"id": 1, "call": {"file", "line", "source", "name", "arguments"}}    a function, in a fork: nothing to start
    {"id": 2, "argv": [...]}                                              a program
    {"id": 3, "signal": [job, number]}   {"id": 4, "look": job}   {"id": 5, "reboot": sync}
    {"id": 6, "put": path, "size": n}, and n bytes as they are

Answers: {"hello": boot id} once; {"id", "pid"} when a job runs; {"id", "status", "out", "err", "value"} at its end.
"""

from __future__ import annotations
import __future__

import contextlib
import ctypes
import json
import linecache
import os
import selectors
import signal
import subprocess
import sys
import traceback
from typing import Any

NAME = "regraft.lab"
FOLDER = "/run/lab"
MOST = 1 << 20  # bytes of output that are told of
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/sbin",
    "PYTHONPATH": "/usr/lib/regraft:/usr/lib/dependencies",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/root",
    "REGRAFT_STATE": "/run/state",
}
_LIBC = ctypes.CDLL(None, use_errno=True)


def load_modules() -> None:
    """finit_module(2) in the order in which the host has laid them down."""
    with open("/lib/modules/order") as file:
        names = file.read().split()
    for name in names:
        with open(f"/lib/modules/{name}", "rb") as module:
            if _LIBC.syscall(313, module.fileno(), b"", 0):
                number = ctypes.get_errno()
                if number != 17:  # EEXIST: the first root has it
                    print(f"lab: module {name}: {os.strerror(number)}", flush=True)


def prepare() -> None:
    """File systems, modules, network."""
    for target in ("/run", "/tmp", "/mnt", "/var", "/root"):
        if _LIBC.mount(b"tmpfs", target.encode(), b"tmpfs", ctypes.c_ulong(0), b""):
            print(f"lab: tmpfs on {target}: {os.strerror(ctypes.get_errno())}", flush=True)
    os.makedirs(FOLDER)
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    load_modules()
    network = ["ip link set lo up"]
    if os.path.exists("/sys/class/net/eth0"):
        network += ["ip addr add 10.0.2.15/24 dev eth0", "ip link set eth0 up", "ip route add default via 10.0.2.2"]
    subprocess.run(["sh", "-c", "; ".join(network)], check=False)


def find_port() -> int:
    """Open the port that bears our name."""
    for port in os.listdir("/sys/class/virtio-ports"):
        with open(f"/sys/class/virtio-ports/{port}/name") as file:
            if file.read().strip() == NAME:
                return os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC)
    raise LookupError("the host gave us no port")


class Agent:
    """The loop. Nothing in it blocks but writing to the host."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._input = b""
        self._jobs: dict[int, int] = {}  # pid to id

    def say(self, **message: Any) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._port, data) :]

    def loop(self) -> None:
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        with open("/proc/sys/kernel/random/boot_id") as file:
            self.say(hello=file.read().strip())
        with selectors.DefaultSelector() as selector:
            selector.register(self._port, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == wake:
                        with contextlib.suppress(BlockingIOError):
                            os.read(wake, 4096)
                        self._reap()
                    else:
                        self._hear()

    def _hear(self) -> None:
        self._input += self._read()
        while b"\n" in self._input:
            line, self._input = self._input.split(b"\n", 1)
            self._obey(json.loads(line))

    def _read(self) -> bytes:
        data = os.read(self._port, 1 << 16)
        if not data:
            raise EOFError("the host has gone")
        return data

    def _receive(self, path: str, size: int) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            while True:
                piece, self._input = self._input[:size], self._input[size:]
                file.write(piece)
                size -= len(piece)
                if not size:
                    return
                self._input = self._read()

    def _obey(self, order: dict[str, Any]) -> None:
        number = order["id"]
        if "signal" in order:
            job, what = order["signal"]
            pids = [pid for pid, known in self._jobs.items() if known == job]
            for pid in pids:
                os.kill(pid, what)
            self.say(id=number, status=0, value=bool(pids), out="", err="")
        elif "look" in order:
            out, err = (self._text(order["look"], name) for name in ("out", "err"))
            self.say(id=number, status=0, value=None, out=out, err=err)
        elif "put" in order:
            self._receive(order["put"], order["size"])
            self.say(id=number, status=0, value=None, out="", err="")
        elif "reboot" in order:
            if order["reboot"]:
                os.sync()
            _LIBC.reboot(0x01234567)
        else:
            pid = os.fork()
            if not pid:
                self._become(order)
            self._jobs[pid] = number
            self.say(id=number, pid=pid)

    def _become(self, order: dict[str, Any]) -> None:
        """In the child: run the job; never returns."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.chdir("/root")
            for target, name, flags in (
                (0, "/dev/null", os.O_RDONLY),
                (1, "out", os.O_WRONLY),
                (2, "err", os.O_WRONLY),
            ):
                path = os.path.join(f"{FOLDER}/{order['id']}", name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                handle = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o600)
                os.dup2(handle, target)
                os.close(handle)
            if "argv" in order:
                os.execvp(order["argv"][0], order["argv"])
            os.close(self._port)
            status = self._call(order["id"], **order["call"])
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _call(self, number: int, file: str, line: int, source: str, name: str, arguments: list[Any]) -> int:
        text = "\n" * (line - 1) + source
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        space: dict[str, Any] = {"__name__": "guest"}
        try:
            exec(compile(text, file, "exec", __future__.annotations.compiler_flag), space)
            value = space[name](*arguments)
        except SystemExit as ended:
            return int(ended.code or 0)
        with open(f"{FOLDER}/{number}/value", "w") as out:
            json.dump(value, out)
        return 0

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = self._jobs.pop(pid, None)
            if number is not None:  # else an orphan: the first process inherits them
                value = self._text(number, "value")
                self.say(
                    id=number,
                    status=os.waitstatus_to_exitcode(status),
                    out=self._text(number, "out"),
                    err=self._text(number, "err"),
                    value=json.loads(value) if value else None,
                )

    @staticmethod
    def _text(number: int, name: str) -> str:
        try:
            with open(f"{FOLDER}/{number}/{name}", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MOST))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""


def main() -> None:
    """Never returns; the kernel panics if we do, and the host sees it."""
    prepare()
    # What jobs import is imported once, before they fork.
    sys.path[:0] = ENVIRONMENT["PYTHONPATH"].split(":")
    import hashlib
    import socket
    import threading

    import lab.inside
    import regraft

    assert all((hashlib, socket, threading, lab.inside, regraft))
    Agent(find_port()).loop()


if __name__ == "__main__":
    main()
