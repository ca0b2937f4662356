# SPDX-License-Identifier: Apache-2.0
"""From pieces of a file, as they arrive, to complete wanted ranges. Pure."""

from __future__ import annotations

import io
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator

from regraft.engine.ranges import Range


class Want:
    """One wanted range and what of it has arrived. `position` is its place in the caller's list."""

    __slots__ = ("_buffer", "_have", "done", "position", "range")

    def __init__(self, position: int, range_: Range) -> None:
        self.position = position
        self.range = range_
        self.done = False
        self._buffer: io.BytesIO | None = None
        self._have: list[tuple[int, int]] = []  # sorted, apart; offsets in the buffer

    def put(self, offset: int, view: memoryview) -> bytes | None:
        """Take what concerns this range from `view`, which lies at `offset` of the file; its bytes once complete."""
        start = max(offset, self.range.offset)
        end = min(offset + len(view), self.range.end)
        if end <= start or self.done:
            return None
        piece = view[start - offset : end - offset]
        if len(piece) == self.range.length:
            self.done, self._buffer = True, None
            return bytes(piece)
        if self._buffer is None:
            self._buffer = io.BytesIO()
            self._buffer.seek(self.range.length - 1)  # takes the memory at once, and once
            self._buffer.write(b"\0")
        start -= self.range.offset
        end -= self.range.offset
        self._buffer.seek(start)
        self._buffer.write(piece)
        if self._note(start, end) != (0, self.range.length):
            return None
        content = self._buffer.getvalue()  # without a copy in CPython: large ranges lie in memory once
        self.done, self._buffer = True, None
        return content

    def _note(self, start: int, end: int) -> tuple[int, int]:
        """Record that [start, end) is there; return the first run of bytes that are there without a hole."""
        have = self._have
        if have and have[-1][1] == start:  # the usual case: the next piece
            have[-1] = (have[-1][0], end)
        else:
            insort(have, (start, end))
            joined = [have[0]]
            for low, high in have[1:]:
                if low <= joined[-1][1]:
                    joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
                else:
                    joined.append((low, high))
            self._have = have = joined
        return have[0]

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        return self.range.length if self.done else sum(end - start for start, end in self._have)

    def missing(self) -> Iterator[Range]:
        """What has to be asked for (again), in order."""
        if self.done:
            return
        at = 0
        for start, end in self._have:
            if start > at:
                yield Range(self.range.offset + at, start - at)
            at = end
        if at < self.range.length:
            yield Range(self.range.offset + at, self.range.length - at)


class Cutter:
    """Cuts the wanted ranges of one request out of whatever the server sends, in whatever order."""

    def __init__(self, wants: Iterable[Want]) -> None:
        self._wants = sorted(wants, key=lambda want: want.range.offset)
        self._starts = [want.range.offset for want in self._wants]
        self._open = len(self._wants)
        self.gained = 0  #: bytes of wanted ranges that were completed

    @property
    def done(self) -> bool:
        """Whether every wanted range is complete."""
        return not self._open

    def feed(self, offset: int, view: memoryview) -> Iterator[tuple[int, bytes]]:
        """Take a piece of the file; yield (position, bytes) of each range that it completes."""
        end = offset + len(view)
        index = max(0, bisect_right(self._starts, offset) - 1)
        while index < len(self._wants) and self._starts[index] < end:
            want = self._wants[index]
            content = want.put(offset, view)
            if content is not None:
                self._open -= 1
                self.gained += len(content)
                yield want.position, content
            index += 1

    def left(self) -> list[Want]:
        """The wanted ranges that are not complete, in order."""
        return [want for want in self._wants if not want.done]
