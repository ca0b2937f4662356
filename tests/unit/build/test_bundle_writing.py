# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest
from made_bundles import FILES, bundle, cms_signer, describe, policy
from pki import key

from regraft.build.bundle import RsaSigner, signing_time, write_bundle
from regraft.errors import FormatError, LimitError, RegraftError, SourceError, UsageError
from regraft.swupdate.bundle import read_bundle


def test_the_same_input_gives_the_same_bytes() -> None:
    assert bundle(signer=cms_signer()) == bundle(signer=cms_signer())
    assert bundle(signer=RsaSigner(key("Root"))) == bundle(signer=RsaSigner(key("Root")))
    assert bundle() == bundle()


def test_artifacts_come_from_files_too(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    out = io.BytesIO()
    write_bundle(out.write, describe(FILES), [(name, tmp_path / name) for name in FILES], signer=cms_signer())
    assert out.getvalue() == bundle(signer=cms_signer())


def test_members_are_in_the_order_that_swupdate_demands() -> None:
    reader = read_bundle(io.BytesIO(bundle(signer=cms_signer())), policy())
    assert [member.name for member in reader.head] == ["sw-description", "sw-description.sig"]
    assert [artifact.name for artifact in reader.members()] == list(FILES)


@pytest.mark.parametrize(
    ("artifacts", "signed", "kind"),
    [
        ([("a", b"")], True, UsageError),
        ([("a", b"1"), ("a", b"2")], True, FormatError),
        ([("../a", b"1")], True, FormatError),
        ([("sw-description", b"1")], True, FormatError),
        ([("sw-description.sig", b"1")], True, FormatError),
        ([("sw-description.sig", b"1")], False, UsageError),
        ([("a", "/does/not/exist")], True, SourceError),
        ([("a", "/")], True, SourceError),
    ],
)
def test_bundles_that_no_device_takes_are_not_made(
    artifacts: list[tuple[str, bytes]], signed: bool, kind: type[RegraftError]
) -> None:
    with pytest.raises(kind):
        write_bundle(lambda _: None, b"x", artifacts, signer=cms_signer() if signed else None)


def test_a_file_too_large_for_its_header_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**32)
    with pytest.raises(LimitError, match="4294967295"):
        write_bundle(lambda _: None, b"x", [("large", tmp_path / "large")], signer=None)


@pytest.mark.parametrize("size", [0, 2**20 + 1])
def test_the_description_has_a_sane_size(size: int) -> None:
    with pytest.raises(LimitError):
        write_bundle(lambda _: None, bytes(size), [], signer=None)


def test_the_signing_time_can_be_fixed() -> None:
    now = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert signing_time({}, now) == now
    assert signing_time({"SOURCE_DATE_EPOCH": "86400"}, now) == dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
    for text in ("x", "1e400", "9" * 30):
        with pytest.raises(UsageError):
            signing_time({"SOURCE_DATE_EPOCH": text}, now)
