# SPDX-License-Identifier: Apache-2.0
"""A pool of threads that nobody waits for."""

from __future__ import annotations

import threading

import pytest

from regraft.engine.threads import DaemonPool


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work_that_fails_costs_no_thread_for_good() -> None:
    pool, done = DaemonPool(1, "test"), threading.Event()
    for _ in range(3):
        pool.submit(int, "not a number")  # against the rules
        for thread in threading.enumerate():
            if thread.name.startswith("test-"):
                thread.join(5)
    pool.submit(done.set)
    assert done.wait(5)
    pool.close()


def test_without_memory_for_another_thread_those_that_there_are_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, busy, done = DaemonPool(2, "test"), threading.Event(), threading.Event()
    pool.submit(busy.wait)

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    pool.submit(done.set)
    busy.set()
    assert done.wait(5)
    pool.close()
    with pytest.raises(RuntimeError):
        DaemonPool(1, "test").submit(done.set)
