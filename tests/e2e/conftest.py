# SPDX-License-Identifier: Apache-2.0
"""The tests that need a device share one, while they follow one another; the next who want it wait for their turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from lab import Guest, Lab, LabError


class Bench:
    """What is up at the moment: a laboratory, and in it a device that tests have left as they found it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.lab: Lab | None = None
        self.guest: Guest | None = None

    def open(self, folder: Any) -> Lab:
        if self.lab is None:
            self.lab = self._stack.enter_context(Lab(folder))
        return self.lab

    def close(self) -> None:
        self._stack.close()
        self.lab = self.guest = None


BENCH = Bench()


def _in_the_lab(item: pytest.Item | None) -> bool:
    return "lab" in getattr(item, "fixturenames", ())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Here, because later marks would come too late to be selected by."""
    if _in_the_lab(item):
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(600))  # waiting for one's turn included


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Side by side and first, so that with several workers one of them gets all of them, and starts at once.

    Those with a device of their own switch the common one off: they come last.
    """
    items.sort(key=lambda item: (not _in_the_lab(item), "guest" not in getattr(item, "fixturenames", ())))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.failed and BENCH.lab is not None and BENCH.lab.guests:
        report.sections.append(("console of the device", BENCH.lab.guests[-1].console(100)))
        BENCH.guest = None
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if not _in_the_lab(nextitem):
        BENCH.close()


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A laboratory, for tests that boot devices of their own."""
    return BENCH.open(tmp_path_factory.mktemp("lab"))


def _leftovers() -> list[str]:
    """What a test has left in the device: mounts, attached and mapped devices, programs."""
    import os

    found = []
    with open("/proc/mounts") as file:
        found += [line.split()[1] for line in file if line.split()[1].startswith(("/mnt/", "/tmp/"))]
    found += [name for name in os.listdir("/sys/block") if name.startswith("dm-")]
    found += [name for name in os.listdir("/sys/block") if os.path.exists(f"/sys/block/{name}/pid")]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) not in (1, os.getpid()):
            with open(f"/proc/{pid}/cmdline") as file:
                found += [words] if (words := file.read().replace("\0", " ")) else []
    return found


@pytest.fixture
def guest(lab: Lab) -> Iterator[Guest]:
    """A device that other tests use as well. A test that leaves traces in it fails."""
    if BENCH.guest is None or not BENCH.guest.alive:
        BENCH.guest = lab.boot()
    yield (device := BENCH.guest)
    if BENCH.guest is device:
        try:
            left = device.call(_leftovers)
        except LabError:
            left = ["a device that does not answer"]
        if left:
            BENCH.guest = None
            pytest.fail(f"left in the device: {left}")
