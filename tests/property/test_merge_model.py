# SPDX-License-Identifier: Apache-2.0
"""A merge against a model that knows no order: whatever the plan, the base ends up as the new image."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from merges import JOURNAL, Builder, Job, blocks_job, state

from regraft.engine.merge_view import MergeView
from regraft.errors import LimitError
from regraft.limits import DEFAULT

BLOCK = 16
SMALL = replace(DEFAULT, merge_batch=6 * BLOCK, batch=4 * BLOCK)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Rows of any length made in any way, in an image longer or shorter than its base."""
    old = random.Random(draw(st.integers(0, 1 << 16))).randbytes(draw(st.integers(1, 400)))
    builder = Builder(old, alternatives=draw(st.booleans()), digests=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 25))):
        length = min(draw(st.integers(1, 40)), len(old))
        kind = draw(st.sampled_from(["zero", "data", "copy", "copy", "copy", "stay", "xor"]))
        if kind == "zero":
            builder.zero(length)
        elif kind == "data":
            builder.data(random.Random(length).randbytes(length))
        elif kind == "stay" and len(builder.new) + length <= len(old):
            builder.copy(len(builder.new), length)
        elif kind == "xor":
            builder.xor(draw(st.integers(0, len(old) - length)), bytes([length]) * length)
        else:
            builder.copy(draw(st.integers(0, len(old) - length)), length)
    return builder.job()


@settings(max_examples=300)
@given(job=jobs(), window=st.sampled_from([40, 64, 1000]), device=st.booleans())
def test_the_base_becomes_the_new_image(job: Job, window: int, device: bool) -> None:
    base = job.medium(device=device)
    merge = job.merge(base, state(), window=window, limits=SMALL)
    try:
        merge.prepare()
    except LimitError:
        assert base.content[: len(job.old)] == job.old
        return
    view = MergeView(merge)
    before = bytearray(len(job.new))
    assert view.read_into(0, memoryview(before)) == len(job.new)
    assert before == job.new, "the view is the new image before anything was merged"
    assert merge.run()
    assert base.content[: len(job.new)] == job.new
    assert merge.status().done == len(job.new)
    if not device:
        assert len(base.content) == len(job.new)


@settings(max_examples=150)
@given(order=st.permutations(range(40)), window=st.sampled_from([4, 10, 40]), alternatives=st.booleans())
def test_permutations_of_blocks(order: list[int], window: int, alternatives: bool) -> None:
    old = random.Random(5).randbytes(40 * BLOCK)
    job = blocks_job(old, order, BLOCK, alternatives=alternatives)
    base = job.medium()
    merge = job.merge(base, state(), window=window * BLOCK, limits=SMALL)
    try:
        assert merge.run()
    except LimitError:
        assert not alternatives
        assert base.content == job.old
    else:
        assert base.content == job.new


@settings(max_examples=150)
@given(job=jobs(), stops=st.lists(st.integers(1, 6), max_size=6), window=st.sampled_from([64, 1000]))
def test_stopped_and_started_again_as_often_as_one_likes(job: Job, stops: list[int], window: int) -> None:
    """Each process ends after some writes; every read in between is of the new image."""
    base, directory = job.medium(), state()
    for stop in [*stops, 1 << 30]:
        merge = job.merge(base, directory, window=window, limits=SMALL)
        try:
            merge.prepare()
        except LimitError:
            return
        view, writes = MergeView(merge), 0
        image = bytearray(len(job.new))
        write = base.write

        def counted(offset, data, write=write):  # type: ignore[no-untyped-def]
            nonlocal writes
            writes += 1
            if writes == stop:  # noqa: B023 - of this round
                merge.stop()  # noqa: B023
            write(offset, data)
            view.read_into(0, memoryview(image))  # noqa: B023
            assert image == job.new  # noqa: B023

        base.write = counted  # type: ignore[method-assign]
        complete = merge.run()
        base.write = write  # type: ignore[method-assign]
        view.read_into(0, memoryview(image))
        assert image == job.new
        if complete:
            break
    assert base.content[: len(job.new)] == job.new
    assert JOURNAL in directory.files
