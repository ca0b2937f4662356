# SPDX-License-Identifier: Apache-2.0
"""What the demo found out, and the comparisons that follow from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The link that the demo puts between server and device: bytes per second, and seconds.
BANDWIDTH, ROUND_TRIP = 20e6 / 8, 0.1


@dataclass(frozen=True, slots=True)
class Killed:
    """An installation that was killed and run again.

    Bytes over the link in each run; `second`: the second run's entry of `regraft install --json`.
    """

    first_wire: int
    second_wire: int
    second: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of the comparison. `parts`: bytes over the link. `seconds`: measured, or computed from the link."""

    name: str
    parts: tuple[int, ...]
    seconds: float
    measured: bool
    own: bool  #: what regraft does, not what it is compared with

    @property
    def total(self) -> int:
        return sum(self.parts)


@dataclass(frozen=True, slots=True)
class Results:
    """Sizes in bytes, times in seconds. `install` and `forecast` are the entries of `regraft install --json`."""

    story: str
    note: str
    image: int
    artifact: int
    bundle: int
    chunks: int
    pack_seconds: float
    forecast: dict[str, Any]
    install: dict[str, Any]
    install_seconds: float
    memory: int
    again_wire: int
    again_seconds: float
    killed: Killed
    kernels: str

    @property
    def moved(self) -> int:
        """Bytes over the network: the chunks, and the bundle that brought their index."""
        return int(self.install["wire"]) + self.bundle

    def share(self, field: str) -> float:
        return float(self.install[field]) / self.image

    def bars(self) -> list[Bar]:
        """What passes the link in each of the ways to update."""
        killed = self.killed
        return [
            Bar("the image as it is", (self.image,), _seconds(self.image), False, False),
            Bar("the image, compressed", (self.artifact,), _seconds(self.artifact), False, False),
            Bar("this update", (self.moved,), self.install_seconds, True, True),
            Bar("killed half-way, run again", (killed.first_wire, killed.second_wire), 0, True, True),
            Bar("the same update again", (self.again_wire,), self.again_seconds, True, True),
        ]

    def forecast_error(self) -> float:
        """How far the forecast of bytes was off, as a share of what was measured."""
        wire = max(self.install["wire"], 1)
        return float(abs(self.forecast["transfer"] - wire) / wire)

    def forecast_words(self) -> tuple[str, str]:
        """Forecast and measurement, in two sentences."""
        cost = self.forecast
        before = f"{size(cost['transfer'])} and {duration(cost['seconds'])} of network time"
        after = f"with reading, writing and verifying it took {duration(self.install_seconds)}"
        off = f"{self.forecast_error():.1%}"
        return f"The forecast, before anything moved: {before}.", f"It was off by {off} in bytes; {after}."


def _seconds(count: int) -> float:
    return count / BANDWIDTH + ROUND_TRIP


def size(count: float) -> str:
    """Bytes for a person, decimal."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds >= 90:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
    return f"{seconds:.1f} s"
