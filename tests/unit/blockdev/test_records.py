# SPDX-License-Identifier: Apache-2.0
"""What is kept of mounts, and how their daemons are asked."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from regraft.blockdev import records
from regraft.blockdev.daemon import as_error, as_fields
from regraft.blockdev.records import Record
from regraft.errors import BusyError, StateError, StatusError, VerificationError

RECORD = Record("nbd", "/dev/nbd3", "/images/a", 4096, 77, identifier="x", connections=2, timeout=30)


def test_a_record_comes_back(state_folder: Path) -> None:
    assert records.load("/dev/nbd3") is None
    records.write(RECORD)
    assert records.load("nbd3") == RECORD
    assert records.every() == [RECORD]
    records.remove(RECORD.stem)
    assert records.every() == []


def test_records_are_for_their_user_alone_since_a_url_may_have_a_password(state_folder: Path) -> None:
    records.write(RECORD)
    assert (state_folder / "mounts").stat().st_mode & 0o777 == 0o700


def test_nothing_of_a_path_becomes_a_name() -> None:
    assert records.stem_of("/dev/nbd3") == "nbd3"
    stem = records.stem_of("/run/../x/\n;rm -rf")
    assert stem.startswith("file-")
    assert "/" not in stem


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"kind": "loop"}, {"pid": -1}, {"pid": True}, {"pid": "7"}, {"size": 1 << 63}, {"extra": 1},
        {"what": None},
    ],
)  # fmt: skip
def test_a_record_in_disorder(change: dict[str, object]) -> None:
    fields = json.loads(records.build(RECORD)) | change
    with pytest.raises(StateError):
        records.parse(json.dumps(fields).encode())


def test_no_truncation_and_no_flip_of_a_record_is_more_than_an_error() -> None:
    data = records.build(RECORD)
    broken = [data[:end] for end in range(len(data))]
    broken += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    for each in broken:
        try:
            records.parse(each)
        except StateError:
            continue


def test_a_broken_record_is_named_and_hides_no_other(state_folder: Path) -> None:
    records.write(RECORD)
    (state_folder / "mounts/nbd1.json").write_text("{")
    with pytest.raises(StateError, match=r"nbd1\.json"):
        records.load("/dev/nbd1")
    assert records.every() == [RECORD]


def test_a_daemon_is_asked_also_where_paths_are_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_STATE", str(tmp_path / ("x" * 100)))
    assert records.ask("nbd3", "status") is None
    listener = records.listen("nbd3")

    def answer() -> None:
        line, _ = listener.accept()
        with line:
            records.say(line, {"heard": records.hear(line)})

    thread = threading.Thread(target=answer)
    thread.start()
    assert records.ask("nbd3", "status", more=1) == {"heard": {"ask": "status", "more": 1}}
    thread.join()
    again = records.listen("nbd3")  # replaces it
    listener.close()
    again.close()
    assert records.ask("nbd3", "status") is None


def test_a_daemon_that_cannot_be_asked_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAFT_STATE", str(tmp_path))
    assert records.connect("nbd3") is None
    (tmp_path / "mounts").mkdir()
    assert records.connect("nbd3") is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:  # what root sees; others are not allowed
        other.bind(str(tmp_path / "mounts" / "nbd3.sock"))
        other.listen()
        with pytest.raises(StateError, match="cannot be asked"):
            records.ask("nbd3", "status")
    assert records.connect("nbd3") is None  # nobody listens


def test_errors_pass_to_another_process() -> None:
    for error in (BusyError("used", cure="wait"), VerificationError("wrong"), StatusError("no", status=404)):
        found = as_error(json.loads(json.dumps(as_fields(error))))
        assert (str(found), found.cure) == (str(error), error.cure)
        assert isinstance(found, BusyError) == isinstance(error, BusyError)
