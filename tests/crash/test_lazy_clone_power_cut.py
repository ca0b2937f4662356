# SPDX-License-Identifier: Apache-2.0
"""A power cut at any instant of a lazy clone: the store is sound, and the next run goes on with what was recorded."""

from __future__ import annotations

from chunk_stores import SMALL, content_of, image, put
from images import CountingSource

from regraft.engine.match import match
from regraft.engine.medium import Directory
from regraft.engine.view import View
from regraft.stores.gc import collect
from regraft.stores.keep import open_keep
from regraft.stores.store import open_store
from regraft.stores.verify import verify
from regraft.testing.crash import Log, World

OLD, NEW = image(1, 2, 3, 0, 4), image(6, 2, 7, 0, 0, 4, 8, 9, 6, tail=300)


def serve(directory: Directory) -> int:
    """Reads in an order of their own, recorded now and then, until the image is complete; the bytes fetched."""
    store = open_store(directory, create=True, limits=SMALL)
    source: CountingSource = NEW.source()
    keep = open_keep(store, "new", NEW.recipe, limits=SMALL)
    if keep is None:
        return 0
    view = View(match(NEW.recipe, []), [], [source], keep=keep)
    for offset in (5000, 100, 2900):
        data = bytearray(900)
        view.read_into(offset, memoryview(data))
        assert data == NEW.content[offset : offset + 900]
        keep.flush()
    rows = range(len(NEW.recipe.table))
    view.keep_rows(rows)
    while wrong := keep.prove():
        view.keep_rows(wrong)
    view.close()
    keep.close()
    return view.fetched


def test_every_power_cut_is_survived() -> None:
    world = World()
    put(world.directory, "old", OLD)
    log = Log(world)
    whole = serve(log.directory)
    visited, fetched = 0, set()
    for state in log.states():
        visited += 1
        store = open_store(state.directory, create=True, limits=SMALL)
        report = verify(store, full=True, workers=1, limits=SMALL)
        assert report.sound, report.damage
        assert report.bad == 0
        if visited % 3 == 0:
            collect(store, limits=SMALL)
        fetched.add(serve(state.directory))
        assert content_of(store, "new") == NEW.content
        assert content_of(store, "old") == OLD.content
        assert store.partials() == []
    assert visited > 30
    assert min(fetched) == 0
    assert max(fetched) == whole
    assert len(fetched) > 2  # part of it was recorded
