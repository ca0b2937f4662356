# SPDX-License-Identifier: Apache-2.0
"""Results to stdout, words to stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

from regraft.errors import RegraftError

#: Version of every JSON object that regraft prints; raised when a field changes its meaning or goes away.
SCHEMA = 1


def emit_json(kind: str, fields: dict[str, Any]) -> None:
    """Print one JSON object: `schema`, `kind`, then the fields."""
    sys.stdout.write(json.dumps({"schema": SCHEMA, "kind": kind, **fields}, indent=2) + "\n")


def say(words: str) -> None:
    """Print words for a person, on stderr."""
    sys.stderr.write(words + "\n")


def fail(error: RegraftError) -> int:
    """Print cause and cure on stderr; return the exit status."""
    say(f"regraft: {error}")
    if error.cure:
        say(f"  cure: {error.cure}")
    return error.exit_status


def size(count: float) -> str:
    """A number of bytes for a person, e.g. `4.2 MB` (decimal, as links and cards are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
