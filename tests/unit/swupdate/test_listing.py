# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from regraft.errors import DigestError, UnlistedError
from regraft.swupdate.description import parse
from regraft.swupdate.listing import check_digest, listed_digests

ONE, TWO = bytes(32), b"\xab" * 32
TEXT = f"""software = {{
  board: {{ stable: {{ main: {{ images: ( {{ filename = "a"; sha256 = "{ONE.hex()}"; }} ); }}; }}; }};
  files: ( {{ filename = "a"; sha256 = "{ONE.hex()}"; }}, {{ filename = "b"; sha256 = "{TWO.hex().upper()}"; }} );
  scripts: ( {{ filename = "c"; type = "lua"; }}, {{ filename = "d"; sha256 = "12"; }} );
  images: ( {{ filename = "e"; sha256 = "{ONE.hex()}"; }}, {{ filename = "e"; sha256 = "{TWO.hex()}"; }} );
}};"""


def test_entries_of_every_selection_count() -> None:
    assert listed_digests(parse(TEXT.encode())) == {
        "a": {ONE},
        "b": {TWO},
        "c": frozenset(),
        "d": frozenset(),
        "e": {ONE, TWO},
    }


def test_an_artifact_must_have_its_own_digest() -> None:
    listed = listed_digests(parse(TEXT.encode()))
    check_digest("a", ONE, listed)
    check_digest("b", TWO, listed)
    for name, digest, kind in (
        ("a", TWO, DigestError),
        ("c", ONE, UnlistedError),
        ("d", ONE, UnlistedError),
        ("e", ONE, DigestError),
        ("x", ONE, UnlistedError),
    ):
        with pytest.raises(kind):
            check_digest(name, digest, listed)
