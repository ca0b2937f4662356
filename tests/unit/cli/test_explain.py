# SPDX-License-Identifier: Apache-2.0
"""`regraft explain` knows every exit status."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from regraft.cli.explain import command, look_up, statuses
from regraft.errors import UsageError, tree


def test_every_error_has_a_meaning_and_a_cure() -> None:
    rows = {row.name: row for row in statuses()}
    for error in tree():
        row = rows[error.__name__]
        assert row.status == error.exit_status
        assert row.meaning, f"{row.name} has no line in the tree that heads regraft.errors"
        assert row.cure or row.name == "RegraftError"


def test_no_status_is_used_twice() -> None:
    numbers = [row.status for row in statuses()]
    assert len(numbers) == len(set(numbers))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("code", ["22", "DigestError"])
def test_a_number_and_a_name_lead_to_the_same_page(code: str) -> None:
    result = CliRunner().invoke(command, [code])
    assert result.exit_code == 0
    assert "exit status  22, DigestError" in result.output
    assert "a kind of    VerificationError (20)" in result.output
    assert "do not install this" in result.output


def test_without_a_code_all_are_listed() -> None:
    result = CliRunner().invoke(command, [])
    assert [int(line.split()[0]) for line in result.output.splitlines()] == [row.status for row in statuses()]


def test_json_has_the_same_rows() -> None:
    found = json.loads(CliRunner().invoke(command, ["--json"]).output)
    assert (found["schema"], found["kind"]) == (1, "explain")
    assert [row["status"] for row in found["statuses"]] == [row.status for row in statuses()]
    (one,) = json.loads(CliRunner().invoke(command, ["51", "--json"]).output)["statuses"]
    assert one["name"] == "TooSmallError"
    assert one["parent"] == "MediumError"


def test_a_killed_command_is_explained_by_its_signal() -> None:
    row = look_up("137")
    assert "SIGKILL" in row.meaning
    assert "continues where it stopped" in row.cure


@pytest.mark.parametrize("code", ["99", "-1", "", "NoSuchError", "1e1", "9" * 5000, "²"])
def test_what_regraft_never_exits_with_is_a_usage_error(code: str) -> None:
    with pytest.raises(UsageError):
        look_up(code)
