# SPDX-License-Identifier: Apache-2.0
"""The numbers and layouts of the NBD protocol (doc/proto.md, "Values" and "Protocol phases"). All are big-endian."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

PORT = 10809
NAME_SIZE = 4096  #: bytes of any string

# Handshake
GREETING = b"NBDMAGIC"
OPTION_MAGIC = int.from_bytes(b"IHAVEOPT", "big")
OPTION_REPLY_MAGIC = 0x0003E889045565A9
CLIENT_FLAGS = Struct(">I")
OPTION = Struct(">QII")  #: magic, option, length
OPTION_REPLY = Struct(">QIII")  #: magic, option, reply, length
FIXED_NEWSTYLE = 1
NO_ZEROES = 2
ZEROES = bytes(124)


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10
    EXTENDED_HEADERS = 11


class Reply(IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_TOO_BIG = 0x80000009


class Info(IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


EXPORT_START = Struct(">QH")  #: size, transmission flags
INFO_EXPORT = Struct(">HQH")  #: Info.EXPORT, size, transmission flags
INFO_BLOCK_SIZE = Struct(">HIII")  #: Info.BLOCK_SIZE, minimum, preferred, maximum
INFO_HEAD = Struct(">H")
U32 = Struct(">I")
U16 = Struct(">H")

# Transmission
REQUEST_MAGIC = 0x25609513
REQUEST = Struct(">IHHQQI")  #: magic, flags, command, cookie, offset, length
SIMPLE_MAGIC = 0x67446698
SIMPLE = Struct(">IIQ")  #: magic, error, cookie
CHUNK_MAGIC = 0x668E33EF
CHUNK = Struct(">IHHQI")  #: magic, flags, type, cookie, length
CHUNK_DATA = Struct(">IHHQIQ")  #: and the offset of the data that follow
CHUNK_HOLE = Struct(">IHHQIQI")  #: and offset and length of the hole
CHUNK_ERROR = Struct(">IHHQIIH")  #: and error and length of the message that follows
CHUNK_STATUS = Struct(">IHHQII")  #: and the context whose extents follow
EXTENT = Struct(">II")  #: length, flags

#: A parsed `REQUEST`. A plain tuple, since there are hundreds of thousands in a second.
Request = tuple[int, int, int, int, int, int]


class Transmission(IntFlag):
    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_DF = 0x80
    CAN_MULTI_CONN = 0x100


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class Flag(IntFlag):
    """Of a request."""

    FUA = 1
    NO_HOLE = 2
    DF = 4
    REQ_ONE = 8
    FAST_ZERO = 16


class Chunk(IntEnum):
    """Types of structured replies."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001


DONE = 1  #: flag of the last chunk of a reply


class Error(IntEnum):
    """The only error numbers that may be sent."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


# Metadata contexts
ALLOCATION = "base:allocation"
#: Our own: where a range comes from, an `Origin` as flags. The protocol gives names of one's own the prefix `x-`.
ORIGIN = "x-regraft:origin"
STATE_HOLE = 1
STATE_ZERO = 2
