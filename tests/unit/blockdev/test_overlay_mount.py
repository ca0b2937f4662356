# SPDX-License-Identifier: Apache-2.0
"""What the daemon of an overlay does with its devices and its merge, and what it refuses; kernels stand in the way of
nothing here."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from merges import Job, mixed_job, state
from nbd_talk import PatternExport
from test_mounts import Kernel

from regraft.blockdev import mounts, records
from regraft.blockdev.device_mapper import Target
from regraft.blockdev.mounts import Faults, NbdMount
from regraft.blockdev.overlay import OverlayMount
from regraft.blockdev.records import Record
from regraft.blockdev.views import joined
from regraft.engine.background import Background
from regraft.engine.merge import Merge
from regraft.errors import BusyError, MediumError, MountError, StateError, UnsupportedError

DISK = PatternExport(size=100 * 512)
TARGET = "/dev/mapper/system"
RECORD = Record(
    "overlay", TARGET, "/diff", 53_248, 1, identifier="regraft-1", base="/dev/mmcblk0p3", dead_timeout=9, merging=True
)


class Mapper:
    """Device-mapper, as far as it is used here: tables by name."""

    def __init__(self) -> None:
        self.tables: dict[str, Target] = {}
        self.used = False
        self.refuses = False

    def __call__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def exists(self, name: str) -> bool:
        return name in self.tables

    def create(self, name: str, targets: list[Target], **_: Any) -> None:
        (self.tables[name],) = targets

    def redirect(self, name: str, targets: list[Target], *, flush: bool = True) -> None:
        if self.refuses:
            raise MountError("device-mapper: TABLE_LOAD system: Device or resource busy")
        (self.tables[name],) = targets

    def leads_to(self, name: str, device: str) -> bool:
        return self.tables[name].parameters == f"{device} 0"

    def remove(self, name: str) -> None:
        if self.used:
            raise BusyError("device-mapper: DEV_REMOVE system: Device or resource busy")
        del self.tables[name]


class Work:
    resumed = False

    def __init__(self, job: Job) -> None:
        self.slot = job.medium()
        self.merge: Merge = job.merge(self.slot, state())

    def run(self) -> bool:
        return self.merge.run()

    def close(self) -> None: ...


DEVICES: list[Device] = []


class Device:
    """An overlay with all that belongs to it."""

    def __init__(self, record: Record = RECORD, *, attached: bool = False, mapper: Mapper | None = None) -> None:
        self.kernel, self.mapper, self.faults = Kernel(), mapper or Mapper(), Faults()
        self.work = Work(mixed_job(random.Random(5), 100, 512))
        self.merge = Background(self.work, block=512, report=self.faults.report)
        self.freed = 0
        below = Record("nbd", "auto", "/diff", 53_248, 1, identifier="regraft-1", connections=2, dead_timeout=9)
        self.disk = NbdMount(joined([DISK], name="disk"), self.kernel, below, self.faults)
        DEVICES.append(self)
        mapping: Any = self.mapper
        self.mount = OverlayMount(self.disk, record, self.merge, self.free, self.faults, mapper=mapping)
        self.mount.begin(attached=attached)

    def free(self) -> None:
        self.freed += 1
        assert self.merge.complete

    def until_merged(self) -> None:
        end = time.monotonic() + 20
        while not self.merge.complete:
            assert time.monotonic() < end
            time.sleep(0.01)

    @property
    def leads_to(self) -> str:
        return self.mapper.tables["system"].parameters


@pytest.fixture(autouse=True)
def _no_device(monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> Iterator[None]:
    monkeypatch.setattr(mounts, "hold_unused", lambda device: -1)
    monkeypatch.setattr(mounts, "set_queue", lambda index, values: None)
    yield
    while DEVICES:
        device = DEVICES.pop()
        device.merge.stop()
        device.disk.close()
        device.kernel.disconnect("")


def kept() -> Record:
    record = records.load(TARGET)
    assert record is not None
    return record


def test_it_merges_and_goes_over_to_the_base(state_folder: Path) -> None:
    device = Device()
    assert device.leads_to == "/dev/nbd9 0"
    assert kept().device == "/dev/nbd9"
    device.until_merged()
    assert not device.mount.tend()
    assert device.leads_to == "/dev/mmcblk0p3 0"
    assert device.mapper.tables["system"].length == 53_248 // 512
    assert device.freed == 1
    assert device.kernel.disk is None
    assert (kept().merged, kept().device, kept().blocks > 50) == (True, "", True)
    (found,) = map(mounts.state_of, records.every())
    assert found["state"] == "swapped"
    assert found["merge"]["merged"] == found["merge"]["total"] == kept().blocks


def test_without_a_swap_it_serves_on_until_asked() -> None:
    device = Device(RECORD.__class__(**{**fields(RECORD), "swap": False}))
    device.until_merged()
    assert device.mount.tend()
    assert kept().merged
    assert device.leads_to == "/dev/nbd9 0"
    assert device.mount.answer("swap") == {"done": True}
    assert not device.mount.tend()
    assert device.leads_to == "/dev/mmcblk0p3 0"
    device.mount.swap()  # a second time is nothing


def test_a_swap_that_fails_is_said_once_and_tried_when_asked() -> None:
    device = Device()
    device.mapper.refuses = True
    device.until_merged()
    for _ in range(3):
        assert device.mount.tend()
    assert device.faults.count == 1
    assert device.kernel.read(0, 0, 512) == DISK.content[:512]
    device.mapper.refuses = False
    device.mount.answer("swap")
    assert device.leads_to == "/dev/mmcblk0p3 0"


def fields(record: Record) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(record)


QUIET = Record(**{**fields(RECORD), "merging": False})


def test_until_it_is_told_nothing_is_merged_and_it_can_be_removed() -> None:
    device = Device(QUIET)
    before = bytes(device.work.slot.content)
    assert device.mount.tend()
    assert device.mount.status()["merge"]["state"] == "ready"
    with pytest.raises(StateError, match="ready"):
        device.mount.swap()
    device.mapper.used = True
    with pytest.raises(BusyError):
        device.mount.answer("remove")
    assert device.mount.tend()
    device.mapper.used = False
    assert device.mount.answer("remove") == {"done": True}
    assert device.mapper.tables == {}
    assert device.kernel.disk is None
    assert device.work.slot.content == before


def test_being_told_to_merge_is_remembered() -> None:
    device = Device(QUIET)
    device.mount.answer("merge")
    assert kept().merging
    device.until_merged()


def test_in_the_middle_there_is_no_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(QUIET)

    def broken() -> None:
        raise MediumError("sync slot: Input/output error")

    sync = device.work.slot.sync
    monkeypatch.setattr(device.work.slot, "sync", broken)
    device.mount.answer("merge")
    device.merge._thread.join()  # type: ignore[union-attr]
    status = device.mount.status()
    assert (status["state"], status["merge"]["state"], status["errors"]) == ("serving", "failed", 1)
    assert "Input/output error" in status["merge"]["error"]
    with pytest.raises(StateError, match="no way back"):
        device.mount.answer("remove")
    assert device.mapper.tables
    monkeypatch.setattr(device.work.slot, "sync", sync)
    device.mount.answer("merge")
    device.until_merged()


def test_asked_to_end_while_it_is_used_it_serves_and_merges_no_more() -> None:
    device = Device(QUIET)
    device.mapper.used = True
    with pytest.raises(BusyError):
        device.mount.detach()
    assert device.mount.tend()
    assert device.kernel.read(0, 512, 512) == DISK.content[512:1024]
    device.mapper.used = False
    device.mount.detach()
    assert not device.mount.tend()
    assert records.load(TARGET) is not None


def test_an_older_table_is_replaced() -> None:
    mapper = Mapper()
    mapper.tables["system"] = Target(0, 104, "linear", "/dev/nbd2 0")
    device = Device(QUIET, mapper=mapper)
    assert device.leads_to == "/dev/nbd9 0"


def test_without_a_device_above_nothing_is_left_below(monkeypatch: pytest.MonkeyPatch) -> None:
    mapper = Mapper()

    def refuse(*_: object, **__: object) -> None:
        raise MountError("device-mapper: no")

    monkeypatch.setattr(mapper, "create", refuse)
    with pytest.raises(MountError):
        Device(mapper=mapper)
    assert DEVICES[-1].kernel.disk is None
    assert records.load(TARGET) is None


def test_it_is_not_handed_over_and_knows_no_other_questions() -> None:
    device = Device(QUIET)
    assert device.mount.answer("dance") is None
    device.mount.answer("pause")
    with pytest.raises(UnsupportedError):
        device.mount.hand_over(None)  # type: ignore[arg-type]
    device.mount.close()
