# SPDX-License-Identifier: Apache-2.0
"""How versions are ordered, and what follows from that."""

from __future__ import annotations

import pytest

from regraft.device.versions import (
    VersionPolicy,
    check_version,
    compare,
    is_ordered,
    parse_versions_file,
    skip_reason,
    versions_of_config,
)
from regraft.errors import StateError, VersionError

#: (left, right, order) as swupdate 2022.12 has it
TABLE = [
    ("1", "1.0.0.0", 0), ("1.2", "1.10", -1), ("2", "10", -1), ("1..2", "1.2", 0), (".1", "1", 0), ("1.", "1", 0),
    ("", "0", 0), ("1.2.3.4.5", "1.2.3.4.6", 0), ("1.2.3.4", "1.2.3.5", -1), ("65535", "65534.9", 1),
    ("70000", "4464", 1), ("65536", "1", 1), ("1.2.70000", "1.2.69999", 1), ("1.2-rc1", "1.2", -1),
    ("1.2.3-a.2", "1.2.3-a.10", -1), ("1.2.3-a", "1.2.3-a.1", -1), ("1.2.3-1", "1.2.3-a", -1),
    ("1.2.3+a", "1.2.3+b", 0), ("1.2.3.4-x", "1.2.3.5-x", 0), ("1.2.3-rc.1-x", "1.2.3-rc.1", 1), ("1-2", "1-10", -1),
    ("1.2.3-01", "1.2.3-1", 0), ("1.2.3-", "1.2.3", -1), ("-a", "0-a", 0), ("+x", "0+y", 0),
    ("1.2.3-a.", "1.2.3-a", 1), ("4294967297-x", "1-x", 0), ("99999999999999999999", "1", -1),
    ("18446744073709551615", "65535", -1), ("abc", "abd", -1), ("1.x", "1.y", -1), ("1_0", "1_1", -1),
    ("v2", "v10", 1), ("a", "1", 1), ("1.2.3.4.x", "1.2.3", 0), ("1.0 ", "1.0", 1),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "order"), TABLE)
def test_versions_compare_as_swupdate_compares_them(left: str, right: str, order: int) -> None:
    assert compare(left, right) == order
    assert compare(right, left) == -order


def test_a_long_version_is_compared_at_once() -> None:
    assert compare("9" * 1_000_000, "1") == 1


def test_only_numbers_and_semantic_versions_have_an_order_by_numbers() -> None:
    assert [is_ordered(version) for version in ("1.2", "1.2.3-rc1", "70000", "v2", "1_0")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("version", "policy"),
    [
        ("1.0", VersionPolicy()),
        ("1.0", VersionPolicy(minimum="1.0", maximum="1.0")),
        ("1.1", VersionPolicy(minimum="1.0", maximum="2.0", current="1.0")),
        ("1.0.0", VersionPolicy(current="1.0")),
    ],
)
def test_a_version_within_the_policy_passes(version: str, policy: VersionPolicy) -> None:
    check_version(version, policy)


@pytest.mark.parametrize(
    "policy", [VersionPolicy(minimum="1.1"), VersionPolicy(maximum="0.9"), VersionPolicy(current="1.0")]
)
def test_a_version_outside_the_policy_is_refused(policy: VersionPolicy) -> None:
    with pytest.raises(VersionError):
        check_version("1.0", policy)


@pytest.mark.parametrize(
    ("version", "different", "higher", "skipped"),
    [
        ("1.0", True, False, True),
        ("1.0.0", True, False, True),
        ("0.9", True, False, False),
        ("1.0", False, True, True),
        ("0.9", False, True, True),
        ("1.1", False, True, False),
        ("1.1", True, True, False),
        ("1.0", False, False, False),
        ("", True, True, False),
    ],
)
def test_an_entry_is_skipped_by_its_own_rule(version: str, different: bool, higher: bool, skipped: bool) -> None:
    installed = (("boot", "9"), ("root", "1.0"))
    assert bool(skip_reason("root", version, different=different, higher=higher, installed=installed)) is skipped


def test_an_entry_that_is_not_installed_or_has_no_name_is_not_skipped() -> None:
    for name in ("other", ""):
        assert not skip_reason(name, "1.0", different=True, higher=True, installed=(("root", "1.0"), ("", "1.0")))


def test_the_versions_file_holds_pairs() -> None:
    assert parse_versions_file("root 1.0\n\nboot\t2018.03\n") == (("root", "1.0"), ("boot", "2018.03"))
    assert parse_versions_file("") == ()
    with pytest.raises(StateError, match="boot"):
        parse_versions_file("root 1.0\nboot\n")


def test_the_configuration_may_hold_them_instead() -> None:
    assert versions_of_config({"versions": [{"name": "root", "version": "1.0"}]}) == [("root", "1.0")]
    assert versions_of_config({}) is None
    for wrong in ({"versions": [{"name": "root"}]}, {"versions": 5}, {"versions": [{"name": 1, "version": "1"}]}):
        with pytest.raises(StateError):
            versions_of_config(wrong)  # type: ignore[arg-type]
