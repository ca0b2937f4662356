# SPDX-License-Identifier: Apache-2.0
"""A device that is the new image from the first moment, while its base becomes that image below it.

`/dev/mapper/NAME` is dm-linear over an NBD device, which a daemon serves. When all is merged, the same name leads to
the base itself: who has a file system of it mounted notices nothing. What the kernel keeps of its pages stays true, for
the content never changes.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from regraft.blockdev import records
from regraft.blockdev.attachment import Attachment, identifier_of, index_of, is_attached
from regraft.blockdev.device_mapper import FOLDER, SECTOR, DeviceMapper, Target, linear
from regraft.blockdev.mounts import Faults, NbdMount, release
from regraft.blockdev.records import Record
from regraft.engine.background import Background
from regraft.errors import BusyError, RegraftError, StateError, UnsupportedError

NO_WAY_BACK = "let it finish: `regraft overlay merge`; the base is neither the old nor the new image until then"


class OverlayMount:
    """A `Mount`: an NBD disk, the mapped device above it, and the merge below it.

    free: called when all is merged, before the base itself is mapped: it must let go of the base, from which `disk`
    must still be able to read. mapper: for tests.
    """

    keeps_record = True

    def __init__(
        self,
        disk: NbdMount,
        record: Record,
        merge: Background,
        free: Callable[[], None],
        faults: Faults,
        *,
        mapper: Callable[[], DeviceMapper] = DeviceMapper,
    ) -> None:
        self.record, self._disk, self._merge, self._free, self._faults = record, disk, merge, free, faults
        self._mapper = mapper
        self._lock = threading.RLock()
        self._refused = self._over = False

    @property
    def name(self) -> str:
        return name_of(self.record)

    def begin(self, *, attached: bool) -> None:
        """Make the device, and merge if that is wanted. attached: by a daemon that is dead.

        Raises BusyError, MissingError, UsageError, MountError.
        """
        if attached:
            self._disk.reattach(self.record.identifier)
        else:
            self._disk.attach()
        self.record = replace(self.record, device=self._disk.record.target)
        try:
            with self._mapper() as mapper:
                table = [_table(self.record, self.record.device)]
                if not mapper.exists(self.name):
                    mapper.create(self.name, table, read_only=True, uuid=f"regraft-{self.name}")
                elif not mapper.leads_to(self.name, self.record.device):
                    mapper.redirect(self.name, table, flush=False)
        except BaseException:
            if not attached:
                with suppress(RegraftError):
                    self._disk.detach(force=True)
            raise
        records.write(self.record)
        if self.record.merging:
            self._merge.start()

    def tend(self) -> bool:
        with self._lock:
            if self._over:
                return False
            self._note()
            if self.record.merged and self.record.swap and not self._refused:
                try:
                    self.swap()
                except RegraftError as error:
                    self._refused = True  # until somebody asks for it
                    self._faults.report(f"{self.record.target} stays as it is: {error}")
                return not self._over
            return self._disk.tend()

    def swap(self) -> None:
        """Have the device lead to the base, and end. Raises StateError before all is merged; MountError."""
        with self._lock:
            if self._over:
                return
            self._note()
            if not self.record.merged:
                status = self._merge.status()
                raise StateError(
                    f"{self.record.target}: {status.done} of {status.total} bytes are in the base; {status.state}",
                    cure="wait, or `regraft overlay merge` if it does not go on",
                )
            self._free()
            with self._mapper() as mapper:
                mapper.redirect(self.name, [_table(self.record, self.record.base)])
            self._over = True
            self._disk.detach()
            self.record = replace(self.record, device="")
            records.write(self.record)

    def detach(self, *, force: bool = False) -> None:
        """Stop after the batch and take the devices away. Who uses them keeps them, and the merge then rests."""
        with self._lock:
            self._merge.stop()
            self._note()
            with self._mapper() as mapper:
                if mapper.exists(self.name):
                    mapper.remove(self.name)
            self._disk.detach(force=force)
            self._over = True

    def answer(self, question: str) -> dict[str, Any] | None:
        with self._lock:
            if question == "merge":
                if not self.record.merging:
                    self.record = replace(self.record, merging=True)
                    records.write(self.record)
                self._refused = False
                self._merge.start()
            elif question == "pause":
                self._merge.pause()
            elif question == "swap":
                self.swap()
            elif question == "remove":
                self._drop()
            else:
                return None
            return {"done": True}

    def _drop(self) -> None:
        """Back to the base as it was, or leave it as it has become; but not halfway."""
        self._merge.stop()
        if self._merge.begun and not self._merge.complete:
            if self.record.merging:
                self._merge.start()
            raise StateError(f"{self.record.base} is changed already: there is no way back", cure=NO_WAY_BACK)
        try:
            self.detach()
        except BusyError:
            if self.record.merging:
                self._merge.start()
            raise

    def status(self) -> dict[str, Any]:
        return {**self._disk.status(), "merge": self._merge.fields()}

    def hand_over(self, line: socket.socket) -> None:
        raise UnsupportedError(
            f"the daemon of {self.record.target} merges and cannot be replaced while it lives",
            cure="end it with SIGKILL, and create the overlay again: nothing is lost",
        )

    def close(self) -> None:
        self._disk.close()

    def _note(self) -> None:
        """Keep that all is merged."""
        if not self.record.merged and self._merge.complete:
            _, total = self._merge.blocks(self._merge.status())
            self.record = replace(self.record, merged=True, blocks=total)
            records.write(self.record)


def name_of(record: Record) -> str:
    """Of an overlay's device."""
    return record.target.removeprefix(f"{FOLDER}/")


def target_of(name: str) -> str:
    """The path of an overlay's device."""
    return f"{FOLDER}/{name}"


def _table(record: Record, device: str) -> Target:
    return linear(0, record.size // SECTOR, device, 0)


def map_base(record: Record) -> bool:
    """Make the device of an overlay that is merged, without a daemon. False if it is there, and is not the base."""
    with DeviceMapper() as mapper:
        name = name_of(record)
        if mapper.exists(name):
            return mapper.leads_to(name, record.base)
        mapper.create(name, [_table(record, record.base)], read_only=True, uuid=f"regraft-{name}")
        return True


def is_attached_for(record: Record) -> bool:
    """Whether the NBD device in the record is still that of this overlay."""
    if not record.device:
        return False
    index = index_of(record.device)
    return is_attached(index) and identifier_of(index) in ("", record.identifier)


def clear(record: Record, attachment: Callable[[], Attachment]) -> None:
    """Take away what an overlay without a daemon has left. Raises BusyError while it is used; MountError."""
    with DeviceMapper() as mapper:
        if mapper.exists(name_of(record)):
            mapper.remove(name_of(record))
    if is_attached_for(record):
        release(replace(record, target=record.device), attachment(), alive=False)
