# SPDX-License-Identifier: Apache-2.0
"""Which board this is, and whether a release was made for it.

Follows SWUpdate's documentation, chapter "SWUpdate: syntax and tags with the default parser", section "Checking for
hardware compatibility". Pure: the caller reads /etc/hwrevision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from regraft.device.ere import compile_pattern
from regraft.errors import HardwareError, LimitError, UsageError
from regraft.limits import DEFAULT, Limits

REVISION_FILE: Final = "/etc/hwrevision"
REGULAR: Final = "#RE:"  #: what an entry of hardware-compatibility starts with that is a POSIX extended expression
_LENGTH: Final = 255  #: of a name or revision; SWUpdate's buffers hold no more


@dataclass(frozen=True, slots=True)
class Hardware:
    """A board's name, which selects sections of an sw-description, and its revision, which must be compatible."""

    board: str
    revision: str


def parse_revision_file(text: str) -> Hardware:
    """The first two words of /etc/hwrevision. Raises HardwareError if there are fewer or one is too long."""
    words = text.split(None, 2)
    if len(words) < 2:
        raise HardwareError(f"{REVISION_FILE} must hold two words, board and revision", cure="give -H BOARD:REVISION")
    return Hardware(_short(words[0]), _short(words[1]))


def parse_option(option: str) -> Hardware:
    """BOARD:REVISION as given with -H. Raises UsageError for anything else."""
    board, colon, revision = option.partition(":")
    if not (board and colon and revision) or (board + revision).split() != [board + revision]:
        raise UsageError(f"{option!r} is not BOARD:REVISION", cure="give it as -H BOARD:REVISION, e.g. -H gateway:1.2")
    return Hardware(_short(board), _short(revision))


def _short(word: str) -> str:
    if len(word.encode(errors="replace")) > _LENGTH:
        raise HardwareError(f"a board name or revision of {len(word)} characters; {_LENGTH} are possible")
    return word


def is_compatible(compatible: Sequence[str], revision: str, *, limits: Limits = DEFAULT) -> bool:
    """Whether one entry equals `revision`, or is `#RE:` and an expression that matches somewhere in it.

    Raises FormatError for a malformed expression that is looked at, LimitError above `limits.artifacts` entries or
    `limits.settings` states of all expressions together.
    """
    if len(compatible) > limits.artifacts:
        raise LimitError(f"{len(compatible)} entries of hardware-compatibility; `artifacts` allows {limits.artifacts}")
    if any(entry == revision for entry in compatible if entry and not entry.startswith(REGULAR)):
        return True
    states = limits.settings
    for entry in compatible:
        if entry.startswith(REGULAR):
            pattern = compile_pattern(entry[len(REGULAR) :], states=min(states, 4096))
            states -= pattern.size
            if pattern.matches(revision):
                return True
    return False


def check_hardware(compatible: Sequence[str] | None, hardware: Hardware | None, *, limits: Limits = DEFAULT) -> None:
    """Raise HardwareError unless `hardware` is named by `compatible`, the release's hardware-compatibility.

    A release without the attribute is refused, and so is a device that does not know what it is: SWUpdate, built with
    this check as distributions build it, does the same.
    """
    if compatible is None:
        raise HardwareError(
            "the bundle does not say which hardware it is for",
            cure="add hardware-compatibility to its sw-description, with the revisions it was tested on",
        )
    if hardware is None:
        raise HardwareError(f"this device does not say which hardware it is: there is no {REVISION_FILE}")
    if not is_compatible(compatible, hardware.revision, limits=limits):
        accepted = ", ".join(compatible[:8]) or "none"
        raise HardwareError(
            f"made for revision {accepted} of the hardware; this is {hardware.board} revision {hardware.revision}"
        )
