# SPDX-License-Identifier: Apache-2.0
"""The order of versions, and -N, --max-version and -R, as swupdate 2022.12 has them."""

from __future__ import annotations

import hashlib

import pytest
from stock_swupdate import Question, Stock

from regraft.device.versions import VersionPolicy, check_version
from regraft.errors import VersionError

BODY = b"hello"
PAIRS = [
    ("70000", "4464"), ("1..2", "1.2"), ("1..2", "1.0.2"), (".1", "0.1"), ("1.2.3.4.5", "1.2.3.4.6"),
    ("1.2-rc1", "1.2"), ("1.2.3-a.2", "1.2.3-a.10"), ("1.2.3-1", "1.2.3-a"), ("1.2.3+a", "1.2.3+b"), ("abc", "abd"),
    ("1.2.70000", "1.2.69999"), ("1.2.3.4.70000", "1.2.3.4"), ("1.2.3.4-x", "1.2.3.5-x"), ("2", "10"), ("v2", "v10"),
    ("99999999999999999999", "1"), ("1.2.3-rc.1-x", "1.2.3-rc.1"), ("1.2.3-", "1.2.3"), ("1.2.3-a.", "1.2.3-a"),
    ("4294967297-x", "1-x"), ("1.2.3.4.x", "1.2.3"), ("1.0 ", "1.0"), ("1.2.3--5", "1.2.3-4"), ("a-b", "a-c"),
    ("1.2.3-00000000001", "1.2.3-1"), ("1.2.3-9999999999", "1.2.3-1"), ("1.2.3-a..b", "1.2.3-a.0.b"),
]  # fmt: skip


def question(version: str, option: str, other: str) -> Question:
    sha = hashlib.sha256(BODY).hexdigest()
    text = (
        f'software = {{ version = "{version}"; hardware-compatibility = ["1.0"]; '
        f'images: ( {{ filename = "a"; type = "raw"; device = "/dev/x"; sha256 = "{sha}"; }} ); }};'
    )
    return Question(text.encode(), (("a", BODY),), options=(option, other))


def allowed(version: str, policy: VersionPolicy) -> bool:
    try:
        check_version(version, policy)
    except VersionError:
        return False
    return True


@pytest.mark.slow
def test_both_allow_and_refuse_the_same_versions(tmp_path_factory: pytest.TempPathFactory) -> None:
    stock = Stock(tmp_path_factory.mktemp("versions"))
    asked = [(version, option, other) for version, other in PAIRS for option in ("-N", "--max-version")]
    asked += [("1.0", "-R", "1.0"), ("1.0", "-R", "1.0.0")]
    policies = {
        "-N": lambda other: VersionPolicy(minimum=other),
        "--max-version": lambda other: VersionPolicy(maximum=other),
        "-R": lambda other: VersionPolicy(current=other),
    }
    answers = stock.ask_all([question(*words) for words in asked])
    theirs = {words: answer.accepted for words, answer in zip(asked, answers, strict=True)}
    ours = {words: allowed(words[0], policies[words[1]](words[2])) for words in asked}
    assert ours == theirs
