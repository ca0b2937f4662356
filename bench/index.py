# SPDX-License-Identifier: Apache-2.0
"""`index.py FILE whole`: index FILE on all cores. `index.py FILE rates`: bytes per second, as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import time

from regraft.engine.files import open_source
from regraft.engine.seeds import index_medium
from regraft.model import Algorithm

_MIB = 1 << 20


def _rates(path: str) -> dict[str, float]:
    """Best of three, in turn: all of it from the page cache."""
    medium = open_source(path)
    size = min(medium.size, 256 * _MIB)
    best = {"sha256": 0.0, "index": 0.0, "all": 0.0}
    piece = bytearray(64 << 10)
    medium.read_into(0, memoryview(piece))
    for _ in range(3):
        began = time.process_time()
        hasher = hashlib.sha256()
        for _ in range(0, size, len(piece)):
            hasher.update(piece)
        best["sha256"] = max(best["sha256"], size / (time.process_time() - began))
        began = time.process_time()
        index_medium(medium, Algorithm.SHA256, size=size, threads=1)
        best["index"] = max(best["index"], size / (time.process_time() - began))
        began = time.monotonic()
        index_medium(medium, Algorithm.SHA256, size=size)
        best["all"] = max(best["all"], size / (time.monotonic() - began))
    return best


if sys.argv[2] == "whole":
    index_medium(open_source(sys.argv[1]), Algorithm.SHA256)
else:
    print(json.dumps(_rates(sys.argv[1])))
