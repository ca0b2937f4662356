# SPDX-License-Identifier: Apache-2.0
"""Each message of the kernel to a file system of one file, and the bytes of the answer."""

from __future__ import annotations

import errno
import stat
import struct
import sys

import pytest
from nbd_talk import PatternExport

from regraft.blockdev.fuse import protocol
from regraft.blockdev.fuse.protocol import OneFile, Operation, Owner
from regraft.errors import FormatError, RegraftError, UnsupportedError
from regraft.limits import Limits

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the bytes are those of a little-endian machine")


def request(operation: int, body: bytes = b"", *, unique: int = 9, node: int = 1, extensions: int = 0) -> bytes:
    return struct.pack("<IIQQIIIHH", 40 + len(body), operation, unique, node, 0, 0, 0, extensions, 0) + body


def init(major: int = 7, minor: int = 38, flags: int = 0xFFFFFFFF) -> bytes:
    return request(Operation.INIT, struct.pack("<IIII", major, minor, 131_072, flags) + bytes(48))


def read(offset: int, size: int) -> bytes:
    return request(Operation.READ, struct.pack("<QQIIQII", 0, offset, size, 0, 0, 0, 0))


class Asked:
    """A file and what it answers: the error, and the body."""

    def __init__(self, export: PatternExport | None = None, limits: Limits | None = None) -> None:
        self.words: list[str] = []
        self.export = export or PatternExport()
        owner = Owner(5, 6, changed=77)
        self.file = OneFile(self.export, owner=owner, report=self.words.append, limits=limits or Limits())
        self.room = memoryview(bytearray(self.file.reply_size))

    def __call__(self, data: bytes) -> tuple[int, bytes] | None:
        answer = self.file.answer(data, self.room)
        if answer is None:
            return None
        length, error, unique = struct.unpack_from("<IiQ", answer)
        assert length == len(answer)
        assert unique == 9
        return -error, bytes(answer[16:])


@pytest.fixture
def ask() -> Asked:
    return Asked()


def test_the_greeting(ask: Asked) -> None:
    error, body = ask(init()) or (1, b"")
    assert error == 0
    assert len(body) == 64
    assert struct.unpack_from("<IIIIHHIIHH", body) == (7, 31, 131_072, 1 | 1 << 15 | 1 << 22, 32, 24, 4096, 1, 64, 0)
    assert ask.file.minor == 31


def test_an_older_kernel_is_followed_and_a_newer_one_asked_again(ask: Asked) -> None:
    assert struct.unpack_from("<II", (ask(init(8, 1)) or (0, b""))[1]) == (7, 31)
    assert ask.file.minor == 0
    _, body = ask(init(7, 23, 0)) or (1, b"")
    assert struct.unpack_from("<IIIIHHIIHH", body)[:4] == (7, 23, 131_072, 0)
    for version in ((7, 22), (6, 99)):
        with pytest.raises(UnsupportedError, match="speaks FUSE"):
            ask(init(*version))
    assert ask(request(Operation.INIT, bytes(15))) == (errno.EPROTO, b"")


def test_the_attributes(ask: Asked) -> None:
    error, body = ask(request(Operation.GETATTR, bytes(16))) or (1, b"")
    valid, _, _, ino, size, blocks, accessed, changed, _, *rest = struct.unpack("<QIIQQQQQQIIIIIIIIII", body)
    assert (error, ino, size, blocks, accessed, changed) == (0, 1, 1 << 20, 2048, 77, 77)
    assert rest == [0, 0, 0, stat.S_IFREG | 0o444, 1, 5, 6, 0, 4096, 0]
    assert valid > 3600


def test_reading(ask: Asked) -> None:
    for offset, size in ((0, 4096), (123, 1), (ask.export.size - 10, 4096), (ask.export.size, 1), (1 << 62, 4096)):
        assert ask(read(offset, size)) == (0, ask.export.content[offset : offset + size])
    assert ask(read(0, Limits().fuse_read_size + 1)) == (errno.EINVAL, b"")


def test_a_read_that_fails_is_an_error_of_that_read_alone() -> None:
    ask = Asked(PatternExport(broken=range(8192, 12_288)))
    assert ask(read(8000, 1000)) == (errno.EIO, b"")
    assert len(ask.words) == 1
    assert ask(read(0, 8192)) == (0, ask.export.content[:8192])


def test_a_fault_of_ours_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Asked()
    monkeypatch.setattr(PatternExport, "read_into", lambda *_: 1 // 0)
    assert ask(read(0, 10)) == (errno.EIO, b"")
    assert "ZeroDivisionError" in ask.words[0]


def test_opening_only_to_read(ask: Asked) -> None:
    assert ask(request(Operation.OPEN, struct.pack("<II", 0o100000, 0))) == (0, struct.pack("<QII", 0, 2, 0))
    for flags in (1, 2):
        assert ask(request(Operation.OPEN, struct.pack("<II", flags, 0))) == (errno.EROFS, b"")
    assert ask(request(Operation.OPEN, bytes(7))) == (errno.EINVAL, b"")


def test_the_file_system(ask: Asked) -> None:
    _, body = ask(request(Operation.STATFS)) or (1, b"")
    assert struct.unpack("<QQQQQIIII24x", body) == (256, 0, 0, 1, 0, 4096, 255, 4096, 0)


def test_other_messages(ask: Asked) -> None:
    for operation in (Operation.FORGET, Operation.BATCH_FORGET, Operation.INTERRUPT):
        assert ask(request(operation, bytes(8))) is None
    for operation in (Operation.RELEASE, Operation.FLUSH, Operation.FSYNC, Operation.DESTROY):
        assert ask(request(operation, bytes(24))) == (0, b"")
    for operation in (Operation.WRITE, Operation.SETATTR, Operation.SETXATTR, Operation.FALLOCATE):
        assert ask(request(operation, bytes(40))) == (errno.EROFS, b"")
    for number in (1, 28, 34, 46, 9999):
        assert ask(request(number, b"name\0")) == (errno.ENOSYS, b"")
    assert ask(request(Operation.GETATTR, bytes(16), node=2)) == (errno.ESTALE, b"")


def test_extensions_are_left_out() -> None:
    found = protocol.parse(request(Operation.READ, bytes(40) + b"extended", extensions=1))
    assert len(found.body) == 40
    with pytest.raises(FormatError, match="words of extensions"):
        protocol.parse(request(Operation.READ, bytes(8), extensions=2))


@pytest.mark.parametrize(
    "data", [init(), read(4096, 512), request(Operation.OPEN, bytes(8)), request(Operation.STATFS)]
)
def test_no_truncation_and_no_flip_is_more_than_an_error(data: bytes) -> None:
    ask = Asked()
    broken = [data[:end] for end in range(len(data))]
    broken += [data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    for each in broken:
        try:
            answer = ask.file.answer(each, ask.room)
        except RegraftError:
            continue
        if answer is not None:
            assert struct.unpack_from("<I", answer)[0] == len(answer)
