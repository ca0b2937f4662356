# SPDX-License-Identifier: Apache-2.0
"""Which board this is, and which bundles are for it."""

from __future__ import annotations

import dataclasses

import pytest

from regraft.device.hardware import Hardware, check_hardware, is_compatible, parse_option, parse_revision_file
from regraft.errors import FormatError, HardwareError, LimitError, UsageError
from regraft.limits import DEFAULT

BOARD = Hardware("gateway", "1.2")


@pytest.mark.parametrize("text", ["gateway 1.2", "gateway\t1.2\n", "\n gateway\n1.2 more words\n"])
def test_the_revision_file_holds_two_words(text: str) -> None:
    assert parse_revision_file(text) == BOARD


@pytest.mark.parametrize("text", ["", "gateway", "gateway " + "x" * 256])
def test_a_revision_file_without_two_short_words_is_refused(text: str) -> None:
    with pytest.raises(HardwareError):
        parse_revision_file(text)


def test_the_option_holds_board_and_revision() -> None:
    assert parse_option("gateway:1.2") == BOARD
    assert parse_option("gateway:a:b") == Hardware("gateway", "a:b")


@pytest.mark.parametrize("text", ["", "gateway", "gateway:", ":1.2", "gate way:1", "gateway:1 2"])
def test_another_form_of_the_option_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_option(text)


@pytest.mark.parametrize(
    "compatible", [("1.2",), ("1.0", "1.2"), ("#RE:^1\\.",), ("#RE:2",), ("2.0", "#RE:^(1|3)\\.[0-9]+$")]
)
def test_one_matching_entry_is_enough(compatible: tuple[str, ...]) -> None:
    check_hardware(compatible, BOARD)


@pytest.mark.parametrize(
    "compatible", [None, (), ("",), ("1.0",), ("1.20",), ("#RE:^2",), ("#re:1",), ("RE:1",), ("gateway",)]
)
def test_no_matching_entry_refuses_the_bundle(compatible: tuple[str, ...] | None) -> None:
    with pytest.raises(HardwareError):
        check_hardware(compatible, BOARD)


def test_a_device_that_does_not_know_itself_takes_nothing() -> None:
    with pytest.raises(HardwareError, match="hwrevision"):
        check_hardware(("1.0",), None)


def test_an_entry_is_no_pattern_without_its_mark() -> None:
    assert not is_compatible(("1.",), "1.2")


def test_a_malformed_expression_that_is_looked_at_is_refused() -> None:
    with pytest.raises(FormatError):
        check_hardware(("#RE:(",), BOARD)


def test_expressions_have_a_budget_together() -> None:
    tight = dataclasses.replace(DEFAULT, settings=600)
    with pytest.raises(LimitError):
        is_compatible(["#RE:^x{200}$"] * 4, "1.2", limits=tight)
    with pytest.raises(LimitError):
        is_compatible(["x"] * 2000, "1.2")
