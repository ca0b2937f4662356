# SPDX-License-Identifier: Apache-2.0
"""One emulated device: a QEMU process, its console, and a line to the agent inside."""

from __future__ import annotations

import inspect
import json
import select
import signal
import socket
import subprocess
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools import tool

from lab.initramfs import MARKER

#: The host as the guest sees it: what listens on 127.0.0.1 here is reached there.
HOST = "10.0.2.2"
BOOT, JOB = 60.0, 60.0  # seconds; a boot takes about 5 when nothing else runs
COMMAND_LINE = "console=ttyS0 loglevel=4 panic=0 random.trust_cpu=on rdinit=/init"


class LabError(Exception):
    """The device did something else than it was told. The message ends with the console's last lines."""


class BootError(LabError):
    """The device hung before its user space."""


@dataclass(frozen=True)
class Disk:
    """A disk of the device: a file of raw bytes, or whatever else QEMU can open (`nbd+unix:///?socket=...`).

    `cache` is QEMU's. In none of its modes is lost what the guest did not flush: that takes a server that holds writes
    back, as `source`.
    """

    source: Path | str
    read_only: bool = False
    cache: str = "writeback"


@dataclass(frozen=True)
class Result:
    """How a job ended: exit status (-signal if one killed it), what it printed, what the function returned."""

    status: int
    out: str
    err: str
    value: Any = None


@dataclass
class Job:
    """Something that runs in the guest."""

    guest: Guest
    number: int
    pid: int = 0
    result: Result | None = None

    def wait(self, timeout: float = JOB) -> Result:
        """How it ended. After `timeout` seconds it is killed, and LabError raised."""
        if not self.guest.pump(lambda: self.result is not None, timeout):
            seen = self.look()
            self.signal(signal.SIGKILL)
            raise LabError(f"a job ran for more than {timeout} s\n{seen.out}\n{seen.err}\n{self.guest.console()}")
        assert self.result is not None
        return self.result

    def signal(self, number: int) -> bool:
        """Whether it was still there to be signalled."""
        return bool(self.guest.ask(signal=[self.number, int(number)]).value)

    def look(self) -> Result:
        """What it has printed so far."""
        return self.result or self.guest.ask(look=self.number)

    def until(self, text: str, timeout: float = 30) -> str:
        """Wait until it has printed `text`; all it has printed."""
        end = time.monotonic() + timeout
        while text not in (seen := self.look()).out:
            if self.result is not None or time.monotonic() > end:
                raise LabError(f"no {text!r} in {seen.out!r}, {seen.err}\n{self.guest.console()}")
            time.sleep(0.05)
        return seen.out


@dataclass
class Guest:
    """A running device. Use `lab.boot` to get one."""

    process: subprocess.Popen[bytes]
    log: Path
    line: socket.socket
    boot_id: str = ""
    boots: int = 0
    _input: bytes = b""
    _number: int = 0
    _jobs: dict[int, Job] = field(default_factory=dict)

    def call(self, function: Callable[..., Any], *arguments: Any, timeout: float = JOB) -> Any:
        """Run a function in the guest; its result. Both ways go through JSON.

        The function's source is sent: what it needs it imports or defines itself (`lab.inside` is there).
        Raises LabError, with the guest's traceback.
        """
        result = self.start(function, *arguments).wait(timeout)
        if result.status:
            raise LabError(f"{function.__name__}: status {result.status}\n{result.out}\n{result.err}")
        return result.value

    def run(self, *argv: str, timeout: float = JOB) -> Result:
        """Run a program in the guest, to its end."""
        return self.start(*argv).wait(timeout)

    def start(self, what: Callable[..., Any] | str, *arguments: Any) -> Job:
        """Begin a program or function in the guest, and leave it running."""
        if isinstance(what, str):
            order: dict[str, Any] = {"argv": [what, *map(str, arguments)]}
        else:
            _, first = inspect.getsourcelines(what)
            source = textwrap.dedent(inspect.getsource(what))
            name = Path(inspect.getfile(what)).name
            call = {"file": name, "line": first, "source": source, "name": what.__name__, "arguments": arguments}
            order = {"call": call}
        job = self._send(order)
        if not self.pump(lambda: job.pid or job.result, JOB):
            raise LabError(f"the agent is silent\n{self.console()}")
        return job

    def put(self, source: Path | bytes, target: str) -> str:
        """Copy a file, or bytes, into the guest; `target`. What lies below /tmp there lies in memory."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        self.ask(data, put=target, size=len(data))
        return target

    def ask(self, data: bytes = b"", /, **order: Any) -> Result:
        """An order that is done at once, and the bytes that go with it."""
        job = self._send(order, data)
        if not self.pump(lambda: job.result, JOB) or job.result is None:
            raise LabError(f"the agent does not answer {order}\n{self.console()}")
        return job.result

    def _send(self, order: dict[str, Any], data: bytes = b"") -> Job:
        self._number += 1
        job = self._jobs[self._number] = Job(self, self._number)
        try:
            self.line.sendall(json.dumps({"id": self._number, **order}).encode() + b"\n" + data)
        except OSError as error:
            raise LabError(f"the device is gone: {error}\n{self.console()}") from None
        return job

    def pump(self, condition: Callable[[], Any], timeout: float) -> bool:
        """Read messages until `condition()`; False after `timeout` seconds. Raises LabError if the device died."""
        end = time.monotonic() + timeout
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if not select.select([self.line], [], [], min(left, 0.5))[0]:
                if "Kernel panic" in self.log.read_text(errors="replace"):
                    raise LabError(f"the kernel panicked\n{self.console()}")
                continue
            data = self.line.recv(1 << 16)
            if not data:
                raise LabError(f"the device has ended\n{self.console()}")
            *lines, self._input = (self._input + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))
        return True

    def _hear(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            self.boot_id = message["hello"]
            self.boots += 1
            return
        job = self._jobs[message.pop("id")]
        if "pid" in message:
            job.pid = message["pid"]
        else:
            job.result = Result(**message)
            del self._jobs[job.number]

    def expect_boot(self, boots: int) -> None:
        """Wait for the agent's greeting. Raises BootError if not even user space was reached."""
        if not self.pump(lambda: self.boots >= boots, BOOT):
            reached = self.log.read_text(errors="replace").count(MARKER) >= boots
            raise (LabError if reached else BootError)(f"no boot within {BOOT} s\n{self.console()}")

    def reboot(self, *, sync: bool = True) -> None:
        """Restart the device's kernel; without `sync` what only its memory knew is lost. Jobs are forgotten."""
        self._send({"reboot": sync})
        self._jobs.clear()
        self._input = b""
        self.expect_boot(self.boots + 1)

    @property
    def alive(self) -> bool:
        """Whether the device is switched on."""
        return self.process.poll() is None

    def cut(self) -> None:
        """The device stops between two instructions. What it had written, flushed or not, the host keeps."""
        self.process.kill()
        self.process.wait(20)
        self.line.close()

    def console(self, lines: int = 40) -> str:
        """The last lines of the console, and QEMU's own words."""
        text = self.log.read_text(errors="replace") + self.log.with_suffix(".qemu").read_text(errors="replace")
        return "--- console\n" + "\n".join(text.splitlines()[-lines:])


def start(
    kernel: Path,
    initramfs: Path,
    disks: Sequence[Disk],
    log: Path,
    *,
    network: bool,
    memory: int = 512,
    processors: int = 2,
) -> Guest:
    """Start QEMU, without waiting for the device to boot.

    It dies with us. Its processors are emulated in any case: nested virtualization is where it is offered often broken.
    """
    here, there = socket.socketpair()
    command = [
        tool("setpriv"), "--pdeathsig", "KILL", tool("qemu-system-x86_64"), "-nodefaults", "-no-user-config",
        "-machine", "q35", "-accel", "tcg,thread=multi", "-m", str(memory), "-smp", str(processors), "-display", "none",
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", COMMAND_LINE, "-serial", f"file:{log}",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=line,fd={there.fileno()}", "-device", "virtserialport,chardev=line,name=regraft.lab",
    ]  # fmt: skip
    for row, disk in enumerate(disks):
        drive = f"if=none,id=disk{row},format=raw,cache={disk.cache},file={str(disk.source).replace(',', ',,')}"
        drive += ",read-only=on" if disk.read_only else ""
        command += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{row}"]
    if network:
        command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
    with there, log.with_suffix(".qemu").open("wb") as words:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, pass_fds=[there.fileno()]
        )
    return Guest(process, log, here)
