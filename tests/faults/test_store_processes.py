# SPDX-License-Identifier: Apache-2.0
"""Clones, collections and reads of one real folder at the same time, each through descriptors of its own."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chunk_stores import SMALL, Image, content_of, image, put

from regraft.errors import BusyError
from regraft.stores.gc import collect
from regraft.stores.store import open_store
from regraft.stores.verify import verify

KEPT = image(1, 2, 3, 0, 4, tail=10)


def of_release(number: int) -> Image:
    """Neighbours share chunks."""
    return image(*range(number, number + 5), 1, 0)


def test_locks_of_the_file_system_keep_them_apart(tmp_path: Path) -> None:
    place = str(tmp_path)
    with open_store(place, create=True, limits=SMALL) as store:
        put(store, "kept", KEPT)
    end = time.monotonic() + 3

    def releasing(stream: int) -> int:
        done = 0
        while time.monotonic() < end:
            name, wanted = f"r{stream}", of_release(random.Random(done).randint(3, 9) + stream)
            with open_store(place, limits=SMALL) as store:
                put(store, name, wanted, replace=True)
                assert content_of(store, name) == wanted.content
                store.remove(name)
            done += 1
        return done

    def collecting(_: int) -> int:
        done = 0
        while time.monotonic() < end:
            with open_store(place, limits=SMALL) as store:
                try:
                    collect(store, limits=SMALL)
                except BusyError:
                    continue
            done += 1
        return done

    def reading(_: int) -> int:
        done = 0
        while time.monotonic() < end:
            with open_store(place, limits=SMALL) as store:
                assert content_of(store, "kept") == KEPT.content
            done += 1
        return done

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(*task) for task in (
            (releasing, 1), (releasing, 2), (collecting, 0), (collecting, 1), (reading, 0), (reading, 1),
        )]  # fmt: skip
        counts = [task.result() for task in work]
    assert all(counts)
    with open_store(place, limits=SMALL) as store:
        collect(store, limits=SMALL)
        assert verify(store, full=True, limits=SMALL).notes == []
        assert store.images() == ["kept"]
        assert content_of(store, "kept") == KEPT.content
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in ("", ".image", ".partial", ".new")) == [
        "kept.image", "lock", "store",
    ]  # fmt: skip
