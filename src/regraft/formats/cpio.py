# SPDX-License-Identifier: Apache-2.0
"""cpio archives in the "new ASCII" format, without (`070701`) and with (`070702`, "crc") checksums.

The layout is that of cpio(5), section "New ASCII Format": a header of 110 characters, the name with its NUL, the data;
name and data are padded with zeros to a multiple of 4. Reading goes strictly forward, so a pipe will do. The rules for
names and sizes are those of SWUpdate's bundles, and stricter where an archive could mean two things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from zlib import adler32

from regraft.errors import FormatError, LimitError, UnsupportedError, UsageError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

HEADER_SIZE = 110
TRAILER = "TRAILER!!!"
MAXIMUM_SIZE = 0xFFFFFFFF  #: of one member: eight hexadecimal digits
_NEWC, _CRC = b"070701", b"070702"
_HEX = frozenset(b"0123456789abcdefABCDEF")
_TYPE_MASK, _REGULAR = 0o170000, 0o100000
_EXACT = 256  #: so many bytes of 255 add up to less than Adler-32's modulus


def checksum(data: Buffer, start: int = 0) -> int:
    """The sum of all bytes modulo 2^32, continued from `start`.

    The low half of Adler-32 is the sum modulo 65521, hence exact for short pieces: several times as fast as `sum`.
    """
    view = memoryview(data)
    return (
        start + sum([adler32(view[i : i + _EXACT], 0) & 0xFFFF for i in range(0, len(view), _EXACT)])
    ) & MAXIMUM_SIZE


def check_name(name: str, *, maximum: int = DEFAULT.name_length, offset: int | None = None) -> None:
    """Raise FormatError unless `name` is a relative path of plain components, printable, of at most `maximum` bytes."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > maximum:
        raise FormatError(f"a member's name must have 1 to {maximum} bytes", offset=offset)
    if not name.isprintable() or "\\" in name:
        raise FormatError(f"member name {name!r} holds a control character or a backslash", offset=offset)
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise FormatError(
            f"member name {name!r} is absolute or has a component that is not a plain name", offset=offset
        )


@dataclass(frozen=True, slots=True)
class Member:
    """One file's header. `offset` is where its header, `data_offset` where its data begins in the archive, in bytes.

    `checksum` is the sum of the data's bytes modulo 2^32, or None in an archive without checksums.
    """

    name: str
    size: int
    checksum: int | None
    offset: int
    data_offset: int
    mode: int
    mtime: int
    inode: int


class Reader:
    """Yields the members of an archive in order; `read` gives the data of the one yielded last, in pieces.

    What was not read of a member is skipped when the next one is asked for, and its checksum is verified all the same.
    The archive is whole only when the iteration has ended without an error.

    `read(n)` of the source returns 1 to n bytes, fewer than n as it likes, and b"" at the end only.
    """

    def __init__(self, read: Callable[[int], bytes], *, limits: Limits = DEFAULT) -> None:
        self._source = read
        self._limits = limits
        self._offset = 0
        self._member: Member | None = None
        self._left = 0
        self._sum = 0
        self._names: set[str] = set()
        self._ended = False

    def __iter__(self) -> Iterator[Member]:
        while (member := self.next()) is not None:
            yield member

    @property
    def offset(self) -> int:
        """Bytes taken from the source so far."""
        return self._offset

    def next(self) -> Member | None:
        """The next member, or None after the trailer.

        Raises FormatError (with the offset), LimitError for too many members.
        """
        if self._ended:
            return None
        self.skip()
        if self._member is not None:
            self._padding(self._member.name)
        self._member = None
        member = self._header()
        if member is None:
            self._ended = True
            self._end()
            return None
        if len(self._names) >= self._limits.artifacts:
            raise LimitError(f"the archive has more than {self._limits.artifacts} members (limit artifacts)")
        if member.name in self._names:
            raise FormatError(f"member {member.name!r} occurs twice", offset=member.offset)
        self._names.add(member.name)
        self._member, self._left, self._sum = member, member.size, 0
        if not member.size:
            self._check_sum(member)
        return member

    def read(self, count: int) -> bytes:
        """1 to `count` bytes of the current member, b"" at its end. The last come only if the checksum is right."""
        member = self._member
        if member is None or not self._left or count <= 0:
            return b""
        piece = self._take(min(count, self._left))
        self._left -= len(piece)
        if member.checksum is not None:
            self._sum = checksum(piece, self._sum)
        if not self._left:
            self._check_sum(member)
        return piece

    def skip(self) -> None:
        """Read the rest of the current member and verify its checksum."""
        while self.read(self._limits.batch):
            pass

    def _check_sum(self, member: Member) -> None:
        if member.checksum is not None and member.checksum != self._sum:
            raise FormatError(
                f"checksum of {member.name!r} is {self._sum:08x}, the header says {member.checksum:08x}",
                offset=member.data_offset,
            )

    def _take(self, count: int) -> bytes:
        piece = self._source(count)
        if not piece:
            where = f"inside {self._member.name!r}" if self._member else "before its trailer"
            raise FormatError(f"the archive ends {where}", offset=self._offset)
        self._offset += len(piece)
        return piece

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._take(count)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _padding(self, after: str) -> None:
        start = self._offset
        if any(self._exactly(-start % 4)):
            raise FormatError(f"the padding after {after!r} is not zero", offset=start)

    def _header(self) -> Member | None:
        offset = self._offset
        header = self._exactly(HEADER_SIZE)
        magic, digits = header[:6], header[6:]
        if magic not in (_NEWC, _CRC):
            raise FormatError(f"no cpio header of the new ASCII format: {magic!r}", offset=offset)
        if not _HEX.issuperset(digits):
            raise FormatError("a cpio header holds something else than hexadecimal digits", offset=offset)
        inode, mode, _, _, _, mtime, size, _, _, _, _, name_size, check = (
            int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)
        )
        if not 2 <= name_size <= min(self._limits.name_length, 255) + 1:
            raise FormatError(f"a member's name of {name_size} bytes", offset=offset)
        raw = self._exactly(name_size)
        if raw[-1] or 0 in raw[:-1]:
            raise FormatError("a member's name does not end in its only NUL", offset=offset)
        try:
            name = raw[:-1].decode()
        except UnicodeDecodeError:
            raise FormatError(f"member name {raw[:-1]!r} is not UTF-8", offset=offset) from None
        self._padding(name)
        if name == TRAILER:
            if size or check:
                raise FormatError("the trailer has data", offset=offset)
            return None
        check_name(name, maximum=self._limits.name_length, offset=offset)
        if mode & _TYPE_MASK not in (0, _REGULAR):
            raise UnsupportedError(f"member {name!r} is not a regular file (mode {mode:o})", offset=offset)
        return Member(name, size, check if magic == _CRC else None, offset, self._offset, mode, mtime, inode)

    def _end(self) -> None:
        """After the trailer only zeros may follow, as archivers pad to whole blocks."""
        start = self._offset
        while piece := self._source(4096):
            self._offset += len(piece)
            if any(piece):
                raise FormatError("there is data behind the archive's trailer", offset=start)
            if self._offset - start > self._limits.trailing_padding:
                raise LimitError(
                    f"more than {self._limits.trailing_padding} bytes follow the trailer (limit trailing_padding)"
                )


class Writer:
    """Writes `070702` archives as SWUpdate wants them. Same members, same bytes: inodes count from 1, times are 0."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._offset = 0
        self._names: set[str] = set()

    def add(self, name: str, size: int, check: int, pieces: Iterable[bytes]) -> None:
        """Append a member of `size` bytes whose `checksum` is `check`; `pieces` are its data.

        Raises FormatError (a name that no reader would take, or data of another size or checksum than promised),
        LimitError (more than 2^32 - 1 bytes, which the header cannot say), UsageError (an empty file: the tools
        around SWUpdate refuse it).
        """
        check_name(name)
        if name == TRAILER or name in self._names:
            raise FormatError(f"member {name!r} occurs twice or is reserved")
        if size > MAXIMUM_SIZE:
            raise LimitError(
                f"{name!r} has {size} bytes, a member of a cpio archive at most {MAXIMUM_SIZE}",
                cure="compress the artifact, split it, or deliver it as a delta",
            )
        if size <= 0:
            raise UsageError(f"{name!r} is empty", cure="leave empty artifacts out")
        self._names.add(name)
        self._header(name, size, check, inode=len(self._names), mode=0o100644, links=1)
        written = total = 0
        for piece in pieces:
            written += len(piece)
            if written > size:
                break
            total = checksum(piece, total)
            self._put(piece)
        if written != size or total != check:
            raise FormatError(f"{name!r} changed while it was written", cure="run again when nothing writes to it")
        self._pad(4)

    def close(self) -> None:
        """Write the trailer and fill the last block of 512 bytes."""
        self._header(TRAILER, 0, 0, inode=0, mode=0, links=1)
        self._pad(512)

    def _header(self, name: str, size: int, check: int, *, inode: int, mode: int, links: int) -> None:
        raw = name.encode() + b"\0"
        fields = (inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(raw), check)
        self._put(_CRC + "".join(f"{field:08X}" for field in fields).encode() + raw)
        self._pad(4)

    def _put(self, data: bytes) -> None:
        self._write(data)
        self._offset += len(data)

    def _pad(self, multiple: int) -> None:
        if fill := -self._offset % multiple:
            self._put(bytes(fill))
