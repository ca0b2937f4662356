# SPDX-License-Identifier: Apache-2.0
"""A store of chunk files that goes wrong as a seed says: the same seed, the same faults, whatever the threads do."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.engine.chunkstores import ReadStore
from regraft.errors import RegraftError, SourceError
from regraft.model.buffers import Buffer

KINDS = ("fail", "truncate", "flip", "delay")


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is, from 0 to 1, and for how many reads of a file at most. pause: seconds of a delay."""

    seed: int = 0
    fail: float = 0.0
    truncate: float = 0.0
    flip: float = 0.0
    delay: float = 0.0
    reads: int = 1 << 30
    pause: float = 0.002

    def chance(self, path: str, turn: int) -> random.Random:
        """What decides about one read of a file: the `turn`-th, from 0."""
        return random.Random(f"{self.seed}/{path}/{turn}")  # noqa: S311 - reproducible faults

    def kind(self, chance: random.Random, turn: int) -> str:
        """One of `KINDS`, or nothing."""
        if turn >= self.reads:
            return ""
        return next((kind for kind in KINDS if chance.random() < getattr(self, kind)), "")


class Faulty:
    """`origin` with faults. done: how often each kind came."""

    def __init__(self, origin: ReadStore, faults: Faults) -> None:
        self.location = origin.location
        self.done: Counter[str] = Counter()
        self._origin, self._faults = origin, faults
        self._turns: Counter[str] = Counter()
        self._lock = threading.Lock()

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        with self._lock:
            turn = self._turns[paths[0]]
            self._turns[paths[0]] += 1
            chance = self._faults.chance(paths[0], turn)
            kind = self._faults.kind(chance, turn)
            self.done[kind] += bool(kind)
        if kind == "fail":
            raise SourceError(f"{self.location}/{paths[0]}: Input/output error")
        if kind == "delay":
            time.sleep(self._faults.pause)
        found = self._origin.read(paths, maximum)
        if not found or kind not in ("truncate", "flip"):
            return found
        data = bytearray(found)
        place = chance.randrange(len(data))
        if kind == "truncate":
            return data[:place]
        data[place] ^= 1 << chance.randrange(8)
        return data

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return self._origin.absent(paths)

    def abort(self) -> None:
        self._origin.abort()
