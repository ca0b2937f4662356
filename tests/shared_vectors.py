# SPDX-License-Identifier: Apache-2.0
"""Test vectors that lie outside of the repository: in the folder REGRAFT_SHARED names, or in `shared` beside it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tools import missing


def vectors(name: str) -> Any:
    """A file of `vectors/`, decoded; the test is skipped without it."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("REGRAFT_SHARED") or beside) / "vectors" / name
    if not path.is_file():
        missing(f"the vector file {name}")
    return json.loads(path.read_text(encoding="utf-8"))


def generated(pieces: list[list[Any]]) -> bytes:
    """An input that is described as a list of pieces, one after another."""
    return b"".join(_piece(*piece) for piece in pieces)


def _piece(kind: str, *rest: Any) -> bytes:
    if kind == "hex":
        return bytes.fromhex(rest[0])
    if kind == "repeat":
        return bytes.fromhex(rest[0]) * int(rest[1])
    if kind == "fill":
        return bytes([rest[0]]) * int(rest[1])
    if kind == "sha256ctr":
        seed, size = str(rest[0]).encode(), int(rest[1])
        blocks = range(-(-size // 32))
        return b"".join(hashlib.sha256(seed + number.to_bytes(8, "little")).digest() for number in blocks)[:size]
    raise ValueError(kind)
