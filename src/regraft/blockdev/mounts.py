# SPDX-License-Identifier: Apache-2.0
"""What a daemon keeps up: a disk that the kernel reads over NBD, perhaps verified, or a file over FUSE."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from regraft.blockdev import records
from regraft.blockdev.attachment import (
    Attachment,
    Disk,
    check_unused,
    hold_unused,
    identifier_of,
    index_of,
    is_attached,
    set_queue,
    size_of,
    socket_pairs,
)
from regraft.blockdev.device_mapper import SECTOR, DeviceMapper, verity_target
from regraft.blockdev.export import Export
from regraft.blockdev.fuse.mount import FuseFile
from regraft.blockdev.nbd.exports import Session
from regraft.blockdev.nbd.handover import hand_over, take_over
from regraft.blockdev.nbd.server import Server
from regraft.blockdev.records import Record
from regraft.errors import BusyError, MissingError, MountError, RegraftError, StateError, UnsupportedError
from regraft.formats.verity import Verity
from regraft.limits import DEFAULT, Limits

#: Of requests that the kernel makes: larger ones cost fewer trips, smaller ones less memory.
_QUEUE = {"max_sectors_kb": 1024}
_ALIVE = 0.5  # seconds in which the kernel lets go of sockets that it did not want
_GOODBYE = 5.0  # seconds for what was asked to be answered
_KEPT_ERRORS = 16


class Faults:
    """What went wrong: how often, and the last of it. `echo` is told too."""

    def __init__(self, echo: Callable[[str], None] = lambda _: None) -> None:
        self._echo = echo
        self._lock = threading.Lock()
        self._last: deque[tuple[float, str]] = deque(maxlen=_KEPT_ERRORS)
        self.count = 0

    def report(self, words: str) -> None:
        with self._lock:
            self.count += 1
            self._last.append((time.time(), words))
        self._echo(words)

    def fields(self) -> dict[str, Any]:
        """For a status: `errors`, and `last_errors` with seconds since 1970."""
        with self._lock:
            last = [{"time": round(at, 3), "what": words[:1000]} for at, words in self._last]
            return {"errors": self.count, "last_errors": last}


class Mount(Protocol):
    """One mount. Its methods may be called from several threads."""

    @property
    def record(self) -> Record: ...

    @property
    def keeps_record(self) -> bool:
        """Whether the record stays when the daemon ends."""
        ...

    def tend(self) -> bool:
        """Put right what went wrong since the last call; False once it is no longer there."""
        ...

    def detach(self, *, force: bool = False) -> None:
        """Take it away. Raises BusyError, and goes on, while it is used; with `force` users get errors."""
        ...

    def status(self) -> dict[str, Any]: ...

    def answer(self, question: str) -> dict[str, Any] | None:
        """What only this kind of mount is asked; None if it does not know the question. Raises RegraftError."""
        ...

    def hand_over(self, line: socket.socket) -> None:
        """Give all of it to the process at the other end. Raises StateError, and goes on, if that fails."""
        ...

    def close(self) -> None:
        """Let go of what this process has of it."""
        ...


class NbdMount:
    """An export as a disk of the kernel. Begin with `attach`, `reattach` or `take_over`."""

    keeps_record = False

    def __init__(
        self, export: Export, attachment: Attachment, record: Record, faults: Faults, *, limits: Limits = DEFAULT
    ) -> None:
        """`record` says how; its target may be "auto"."""
        self.record = record
        self._attachment, self._faults = attachment, faults
        self._disk = Disk(
            export.size, timeout=record.timeout, dead_timeout=record.dead_timeout, identifier=record.identifier
        )
        self._session = Session(export)
        self._server = Server([export], report=faults.report, limits=limits)
        self._lock = threading.RLock()
        self._gone = self._closed = False

    def attach(self) -> None:
        """Make the target the disk. Raises BusyError, MissingError, UsageError, MountError."""
        theirs = self._adopt(self.record.connections)
        try:
            device = self._attachment.attach(self.record.target, theirs, self._disk)
        finally:
            _close(theirs)
        self.record = replace(self.record, target=device)
        set_queue(index_of(device), _QUEUE)

    def reattach(self, known: str = "") -> None:
        """Give a disk whose daemon has died new connections. Raises BusyError if that lives, or it is another image.

        known: the identifier, for kernels that do not tell, if it is not in the record of the device.
        """
        device = self.record.target
        index = index_of(device)
        known = identifier_of(index) or known
        if not known and (record := records.load(device)) is not None:
            known = record.identifier
        if not known:
            raise BusyError(f"{device} is attached by another program", cure="take another device, or auto")
        if known != self.record.identifier or size_of(index) != self._disk.size:
            raise BusyError(
                f"{device} is attached to another image: {known}, not {self.record.identifier}",
                cure="mount the image that it had, or `regraft umount` it first",
            )
        theirs = self._adopt(self.record.connections)
        try:
            self._attachment.reconfigure(device, theirs, self._disk)
        finally:
            _close(theirs)
        # Where a connection lives, the kernel takes no other in its place, and says nothing.
        end = time.monotonic() + _ALIVE
        while self._server.clients and time.monotonic() < end:
            time.sleep(0.02)
        if not self._server.clients:
            raise BusyError(f"the daemon of {device} lives", cure="regraft mount --take-over, or end it")

    def take_over(self, line: socket.socket) -> None:
        """Go on where the daemon at the other end stops. Raises StateError."""
        if take_over(self._server, line) == 0:
            raise StateError(f"the daemon of {self.record.target} had no connections", cure="try again")

    def verify(self, verity: Verity, name: str) -> str:
        """Set up dm-verity above the disk, which has the hash tree in it; the path of the verified device."""
        device = self.record.target
        with DeviceMapper() as mapper:
            path = mapper.create(name, [verity_target(verity, device, device)], read_only=True, uuid=f"regraft-{name}")
        self.record = replace(self.record, mapper=name, root_hash=verity.root.hex())
        return path

    def tend(self) -> bool:
        with self._lock:
            if self._gone:
                return False
            missing = self.record.connections - self._server.clients
            if missing <= 0:
                return True
            device = self.record.target
            if not self._attachment.connected(device):
                return False
            if not self._attachment.can_reconfigure:
                return self._server.clients > 0
            theirs = self._adopt(missing)
            try:
                self._attachment.reconfigure(device, theirs, self._disk)
                self._faults.report(f"{device}: {missing} connections were lost and replaced")
            except RegraftError as error:
                self._faults.report(str(error))
            finally:
                _close(theirs)
            return True

    def detach(self, *, force: bool = False) -> None:
        with self._lock:
            if not self._gone:
                release(self.record, self._attachment, alive=True, force=force)
                self._gone = True
                self.close()

    def answer(self, question: str) -> dict[str, Any] | None:
        return None

    def status(self) -> dict[str, Any]:
        return {"state": "serving", "live_connections": self._server.clients, **self._faults.fields()}

    def hand_over(self, line: socket.socket) -> None:
        with self._lock:
            if not self._attachment.can_reconfigure:
                raise UnsupportedError(
                    f"{self.record.target} is attached by ioctl and lives no longer than its daemon",
                    cure="umount and mount again",
                )
            hand_over(self._server, line)
            self._gone = True
            self.close()

    def close(self) -> None:
        """End all threads and connections; the device stays, and its readers wait for another daemon."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._server.stop(_GOODBYE)

    def _adopt(self, count: int) -> list[socket.socket]:
        """Serve `count` new connections; the ends for the kernel."""
        try:
            ours, theirs = socket_pairs(count)
        except OSError as error:
            raise MountError(f"no sockets: {error.strerror}") from None
        for client in ours:
            self._server.adopt(client, self._session)
        return theirs


class FuseMount:
    """An export as a file."""

    keeps_record = False

    def __init__(self, file: FuseFile, record: Record, faults: Faults) -> None:
        self.record, self._file, self._faults = record, file, faults
        self._lock = threading.Lock()

    def tend(self) -> bool:
        return self._file.alive

    def detach(self, *, force: bool = False) -> None:
        with self._lock:
            if self._file.alive:
                self._file.unmount(force=force)

    def answer(self, question: str) -> dict[str, Any] | None:
        return None

    def status(self) -> dict[str, Any]:
        return {"state": "serving", **self._faults.fields()}

    def close(self) -> None:
        if not self._file.alive:
            self._file.close()

    def hand_over(self, line: socket.socket) -> None:
        raise UnsupportedError(f"{self.record.target} is a FUSE file, which stays with its daemon", cure="umount first")


def release(record: Record, attachment: Attachment, *, alive: bool, force: bool = False) -> None:
    """Take a disk away, and the verified device above it. alive: whether its daemon serves it.

    Raises BusyError while it is used, unless `force` is given; MountError.
    """
    held = -1
    try:
        try:
            if record.mapper:
                _remove_verified(record)
            if alive:
                held = hold_unused(record.target)
            else:
                check_unused(record.target)
        except BusyError:
            if not force:
                raise
        attachment.disconnect(record.target)
    finally:
        if held >= 0:
            os.close(held)
    if force and record.mapper:
        with suppress(RegraftError):
            _remove_verified(record)


def _remove_verified(record: Record) -> None:
    with DeviceMapper() as mapper:
        if mapper.exists(record.mapper):
            mapper.remove(record.mapper)


def verified_size(name: str) -> int:
    """Bytes of a verified device that exists already; 0 if it does not. Raises MissingError without device-mapper."""
    try:
        with DeviceMapper() as mapper:
            if not mapper.exists(name):
                return 0
            return sum(target.length for target in mapper.status(name, table=True).targets) * SECTOR
    except MissingError:
        return 0


def state_of(record: Record) -> dict[str, Any]:
    """What is known of a mount: from its daemon, or without it: `dead` means that readers wait or get errors."""
    fields: dict[str, Any] = {
        "kind": record.kind,
        "target": record.target,
        "what": record.what,
        "size": record.size,
        "pid": record.pid,
        "connections": record.connections,
        "verity": {"device": f"/dev/mapper/{record.mapper}", "root_hash": record.root_hash} if record.mapper else None,
    }
    if record.kind == "overlay":
        fields |= {"base": record.base, "device": record.device}
    try:
        answer = records.ask(record.stem, "status")
    except RegraftError as error:
        return {**fields, "state": "silent", "errors": 1, "last_errors": [{"what": str(error)}]}
    if answer is not None and isinstance(answer.get("status"), dict):
        return {**fields, **answer["status"]}
    if record.kind == "overlay":
        if record.merged:
            return {**fields, "state": "swapped", "merge": merged_fields(record)}
        device = record.device
    else:
        device = record.target
    attached = record.kind == "fuse" or (device != "" and is_attached(index_of(device)))
    return {**fields, "state": "dead" if attached else "gone"}


def merged_fields(record: Record) -> dict[str, Any]:
    """What an overlay whose merge is complete says of that."""
    return {
        "merged": record.blocks, "total": record.blocks, "state": "complete", "done": record.size, "size": record.size,
        "error": "", "rate": 0,
    }  # fmt: skip


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()
