# SPDX-License-Identifier: Apache-2.0
"""What to ask a server for, learnt from what it answers: many ranges, few, one at a time, or just the file. Pure."""

from __future__ import annotations

from enum import Enum, IntEnum

from regraft.limits import DEFAULT, Limits


class Level(IntEnum):
    """The rungs, lowest first."""

    STREAM = 0  #: a plain GET, from which the wanted ranges are cut as it passes
    SINGLE = 1  #: one range per request, several requests at once
    FEW = 2
    MANY = 3


#: Ranges per request on the rung FEW.
FEW = 16


class Answer(Enum):
    """How a server's answer to a request for ranges differs from what was asked."""

    GOOD = "good"
    WHOLE = "the whole file"
    FIRST_ONLY = "only the first of several ranges"
    INCOMPLETE = "some of the ranges were left out"
    MALFORMED = "malformed"
    REFUSED = "the request was refused"
    ENCODED = "ranges of a compressed form of the file"
    BROKEN = "the connection broke again and again without progress"


def ranges_per_request(level: Level, limits: Limits = DEFAULT) -> int:
    """How many ranges one request may name on this rung; 1 for STREAM, which names none."""
    if level is Level.MANY:
        return max(1, limits.ranges_per_request)
    return max(1, min(FEW, limits.ranges_per_request)) if level is Level.FEW else 1


def step(level: Level, spans: int, answer: Answer) -> Level:
    """The rung to stand on after `answer` to a request for `spans` ranges, made while on `level`.

    Never higher than `level`. Every answer but GOOD to a request for a single range leads to STREAM in the end,
    except a broken connection, which says nothing about ranges then.
    """
    if answer is Answer.GOOD or level is Level.STREAM:
        return level
    several = spans > 1
    if answer is Answer.BROKEN:
        return _down(level) if several else level
    if answer is Answer.ENCODED:
        return Level.STREAM
    if not several:
        return Level.STREAM
    if answer in (Answer.FIRST_ONLY, Answer.WHOLE):
        return min(level, Level.SINGLE)
    return _down(level)


def _down(level: Level) -> Level:
    return Level(max(level - 1, Level.STREAM))
