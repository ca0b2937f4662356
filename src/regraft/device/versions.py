# SPDX-License-Identifier: Apache-2.0
"""Versions: how SWUpdate orders them, which are installed, and what follows from that.

Follows SWUpdate's documentation, chapter "SWUpdate: syntax and tags with the default parser", section "Checking version
of installed software", and, where it is silent, what the program does. Pure: the caller reads /etc/sw-versions.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from regraft.errors import StateError, VersionError
from regraft.formats.libconfig import Value

VERSIONS_FILE: Final = "/etc/sw-versions"
_NUMERIC = frozenset(string.digits + ".")
_SEMANTIC = frozenset(string.digits + string.ascii_letters + ".-+")
_LEADING = re.compile(r"-?[0-9]+|")
_LONG = (1 << 63) - 1


def compare(left: str, right: str) -> int:
    """-1, 0 or 1: how SWUpdate orders two versions.

    Both of up to four numbers below 65536: field by field. Else both semantic versions: as such. Else as byte strings.
    """
    one, other = _numbers(left), _numbers(right)
    if one is not None and other is not None:
        return _sign(one > other, one < other)
    first, second = _semantic(left), _semantic(right)
    if first is not None and second is not None:
        if first[0] != second[0]:
            return _sign(first[0] > second[0], first[0] < second[0])
        return _compare_prereleases(first[1], second[1])
    a, b = left.encode(errors="surrogateescape"), right.encode(errors="surrogateescape")
    return _sign(a > b, a < b)


def is_ordered(version: str) -> bool:
    """Whether `version` has an order by numbers; any other text is compared byte by byte."""
    return _numbers(version) is not None or _semantic(version) is not None


def _sign(greater: bool, less: bool) -> int:
    return greater - less


def _numbers(version: str) -> tuple[int, ...] | None:
    """The first four fields, missing ones 0, empty ones passed over; None if it is no such version."""
    if not _NUMERIC.issuperset(version):
        return None
    fields = [field for field in version.split(".") if field]
    # the length is looked at first: int() of a long text is quadratic
    if any(len(field.lstrip("0")) > 5 or int(field.lstrip("0") or "0") > 65535 for field in fields):
        return None
    return tuple([int(field) for field in fields[:4]] + [0] * (4 - len(fields)))


def _semantic(version: str) -> tuple[tuple[int, int, int], str | None] | None:
    """Major, minor and patch with the prerelease (None if there is none); build metadata does not count."""
    if len(version) > 255 or not _SEMANTIC.issuperset(version):
        return None
    core, dash, prerelease = version.partition("+")[0].partition("-")
    fields = core.split(".")[:4]
    if any(field and not field.isdigit() for field in fields):
        return None
    numbers = [_int(field) for field in fields] + [0, 0]
    return (numbers[0], numbers[1], numbers[2]), prerelease if dash else None


def _int(digits: str) -> int:
    """What C makes of it: saturated at 63 bits, then cut to a signed 32-bit integer."""
    number = int(digits or "0")
    low = max(min(number, _LONG), -_LONG - 1) & 0xFFFFFFFF
    return low - (1 << 32) if low >= 1 << 31 else low


def _compare_prereleases(left: str | None, right: str | None) -> int:
    if left is None or right is None:
        return (left is None) - (right is None)
    ones, others = left.split("."), right.split(".")
    for one, other in zip(ones, others, strict=False):
        numeric = [_LEADING.match(word)[0] == word for word in (one, other)]  # type: ignore[index]  # it matches always
        if all(numeric):
            difference = _int(one) - _int(other)
        elif any(numeric):
            return -1 if numeric[0] else 1
        else:
            difference = _sign(one > other, one < other)
        if difference:
            return 1 if difference > 0 else -1
    return _sign(len(ones) > len(others), len(ones) < len(others))


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """What the device demands of a release's version; an empty string demands nothing.

    `minimum` is swupdate's -N, `maximum` its --max-version, `current` its -R.
    """

    minimum: str = ""
    maximum: str = ""
    current: str = ""


def check_version(version: str, policy: VersionPolicy) -> None:
    """Raise VersionError if `version` is below the minimum, above the maximum, or (as a string) the current one."""
    if policy.minimum and compare(version, policy.minimum) < 0:
        raise VersionError(f"version {version} is older than {policy.minimum}, and downgrading is not allowed")
    if policy.maximum and compare(version, policy.maximum) > 0:
        raise VersionError(f"version {version} is newer than the maximum {policy.maximum}")
    if policy.current and version == policy.current:
        raise VersionError(f"version {version} is installed already, and reinstalling is not allowed")


Installed = Sequence[tuple[str, str]]  #: names of components and their versions


def parse_versions_file(text: str) -> Installed:
    """The pairs of words of /etc/sw-versions. Raises StateError if a word is left over."""
    words = text.split()
    if len(words) % 2:
        raise StateError(
            f"{VERSIONS_FILE} must hold pairs of name and version; {words[-1][:40]!r} is left over",
            cure=f"mend {VERSIONS_FILE}",
        )
    return tuple(zip(words[::2], words[1::2], strict=True))


def versions_of_config(settings: Mapping[str, Value]) -> Installed | None:
    """The list `versions` of a swupdate.cfg; None if it has none. Raises StateError if it is malformed."""
    listed = settings.get("versions")
    if listed is None:
        return None
    pairs: list[tuple[str, str]] = []
    for item in listed if isinstance(listed, (list, tuple)) else (listed,):
        name, version = (item.get("name"), item.get("version")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(version, str):
            raise StateError(
                "'versions' of the configuration must be a list of groups with name and version",
                cure="mend the configuration file",
            )
        pairs.append((name, version))
    return pairs


def skip_reason(name: str, version: str, *, different: bool, higher: bool, installed: Installed) -> str:
    """Why an entry is not installed: install-if-different or install-if-higher; empty if it is installed.

    Without a name or a version an entry is always installed.
    """
    if not name or not version:
        return ""
    for other, present in installed:
        if other != name:
            continue
        order = compare(version, present)
        if different and order == 0:
            return f"{name} {present} is installed already"
        if higher and order <= 0:
            return f"{name} {present} is installed, and {version} is not higher"
    return ""
