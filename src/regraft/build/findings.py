# SPDX-License-Identifier: Apache-2.0
"""What `lint` says: one finding for one fault, with the generations of SWUpdate that it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
Generation: TypeAlias = Literal["2022.12", "current"]

OLD: Final[tuple[Generation, ...]] = ("2022.12",)
CURRENT: Final[tuple[Generation, ...]] = ("current",)
ALL: Final[tuple[Generation, ...]] = ("2022.12", "current")
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault. `where` names the member or the place in the description, `cure` what to do.

    An `error` makes an installation fail or go wrong, a `warning` costs something or is likely a mistake, a `note` is
    good to know.
    """

    severity: Severity
    rule: str
    where: str
    message: str
    cure: str
    generations: tuple[Generation, ...] = ALL


@dataclass(frozen=True, slots=True)
class MemberFacts:
    """A file of the bundle: its size in bytes, the digest of its bytes as stored, and these if they may be a header."""

    name: str
    size: int
    sha256: bytes
    checksummed: bool = True
    content: bytes | None = None  #: of sw-description and of zchunk headers


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """All that the rules look at. `fault` is why the archive could not be read to its end, if so."""

    members: tuple[MemberFacts, ...]
    fault: str = ""

    def member(self, name: str) -> MemberFacts | None:
        return next((member for member in self.members if member.name == name), None)


def error(rule: str, where: str, message: str, cure: str, generations: tuple[Generation, ...] = ALL) -> Finding:
    return Finding("error", rule, where, message, cure, generations)


def warning(rule: str, where: str, message: str, cure: str, generations: tuple[Generation, ...] = ALL) -> Finding:
    return Finding("warning", rule, where, message, cure, generations)


def note(rule: str, where: str, message: str, cure: str, generations: tuple[Generation, ...] = ALL) -> Finding:
    return Finding("note", rule, where, message, cure, generations)
