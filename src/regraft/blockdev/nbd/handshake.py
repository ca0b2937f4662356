# SPDX-License-Identifier: Apache-2.0
"""The server's side of the handshake (doc/proto.md, "Fixed newstyle negotiation"), as a state machine over bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from regraft.blockdev.export import Export
from regraft.blockdev.nbd.exports import CONTEXTS, Exports, Session, contexts_of
from regraft.blockdev.nbd.protocol import (
    CLIENT_FLAGS,
    EXPORT_START,
    FIXED_NEWSTYLE,
    GREETING,
    INFO_BLOCK_SIZE,
    INFO_EXPORT,
    INFO_HEAD,
    NAME_SIZE,
    NO_ZEROES,
    OPTION,
    OPTION_MAGIC,
    OPTION_REPLY,
    OPTION_REPLY_MAGIC,
    U16,
    U32,
    ZEROES,
    Info,
    Option,
    Reply,
)
from regraft.errors import FormatError
from regraft.limits import DEFAULT, Limits
from regraft.model.buffers import Buffer

_SKIPPED = 16  # times the size of an option up to which one that is too long is skipped and not the end


class State(Enum):
    TALKING = "talking"
    UPGRADE = "upgrade"  #: the next bytes are TLS
    TRANSMIT = "transmit"
    CLOSE = "close"


class _RefusedError(Exception):
    """An option that is answered with an error."""

    def __init__(self, reply: Reply, words: str) -> None:
        super().__init__(words)
        self.reply = reply


class Handshake:
    """Send `greeting`, then `feed` what comes and send what `answer` gives until it gives None; then look at `state`.

    One option at a time is answered, so that a client which does not read its answers gets no further ones made.
    """

    def __init__(self, exports: Exports, *, tls: bool = False, secure: bool = False, limits: Limits = DEFAULT) -> None:
        """`tls`: nothing is told before the client has upgraded. `secure`: it has."""
        self.state = State.TALKING
        self.reason = ""  #: why it ended, if it did by a fault of the client
        self.greeting = GREETING + OPTION_MAGIC.to_bytes(8, "big") + U16.pack(FIXED_NEWSTYLE | NO_ZEROES)
        self._exports = exports
        self._tls = tls
        self._secure = secure
        self._limits = limits
        self._data = bytearray()
        self._session: Session | None = None
        self._flags: int | None = None
        self._options = 0
        self._skip = 0
        self._after_skip = b""
        self._structured = False
        self._selected: tuple[Export, tuple[str, ...]] | None = None

    @property
    def session(self) -> Session:
        """What was agreed, in the state TRANSMIT."""
        if self._session is None:
            raise FormatError("an NBD client went on without having chosen an export")
        return self._session

    @property
    def rest(self) -> bytes:
        """Bytes that came behind the handshake."""
        return bytes(self._data)

    def feed(self, data: Buffer) -> None:
        self._data += data

    def answer(self) -> bytes | None:
        """What to send next, perhaps nothing; None if more must come first, or the handshake is over."""
        if self.state is not State.TALKING:
            return None
        if self._flags is None:
            return self._client_flags()
        if self._skip:
            skipped = min(self._skip, len(self._data))
            del self._data[:skipped]
            self._skip -= skipped
            return None if self._skip else self._after_skip
        if len(self._data) < OPTION.size:
            return None
        magic, option, length = OPTION.unpack_from(self._data)
        if magic != OPTION_MAGIC:
            return self._close(f"wrong magic number {magic:#x} of an option")
        if length > self._limits.nbd_option_size:
            return self._too_long(option, length)
        if len(self._data) < OPTION.size + length:
            return None
        data = bytes(self._data[OPTION.size : OPTION.size + length])
        del self._data[: OPTION.size + length]
        self._options += 1
        if self._options > self._limits.nbd_options:
            return self._close(f"more than {self._limits.nbd_options} options")
        return self._option(option, data)

    def upgraded(self) -> Handshake:
        """The handshake that goes on inside of TLS: all that was said before is forgotten.

        Bytes that came in the clear behind STARTTLS are an attack, or a client in disorder. Raises FormatError.
        """
        if self._data:
            raise FormatError(f"{len(self._data)} bytes in the clear behind STARTTLS")
        successor = Handshake(self._exports, tls=True, secure=True, limits=self._limits)
        successor._flags = self._flags
        successor._options = self._options
        return successor

    def _client_flags(self) -> bytes | None:
        if len(self._data) < CLIENT_FLAGS.size:
            return None
        (flags,) = CLIENT_FLAGS.unpack_from(self._data)
        del self._data[: CLIENT_FLAGS.size]
        if flags & ~(FIXED_NEWSTYLE | NO_ZEROES):
            return self._close(f"unknown client flags {flags:#x}")
        self._flags = flags
        return b""

    def _close(self, reason: str, last: bytes = b"") -> bytes:
        self.state = State.CLOSE
        self.reason = reason
        return last

    def _too_long(self, option: int, length: int) -> bytes:
        if option == Option.EXPORT_NAME or length > _SKIPPED * self._limits.nbd_option_size:
            return self._close(f"option {option} of {length} bytes")
        del self._data[: OPTION.size]
        self._options += 1
        self._skip = length
        known = option in _ANSWERS or option in (Option.ABORT, Option.STARTTLS)
        self._after_skip = _reply(option, Reply.ERR_TOO_BIG if known else Reply.ERR_UNSUP, f"{length} bytes".encode())
        return b""

    def _option(self, option: int, data: bytes) -> bytes:
        if option == Option.ABORT:
            return self._close("", _reply(option, Reply.ACK))
        if option == Option.STARTTLS:
            return self._start_tls(data)
        if self._tls and not self._secure:
            if option == Option.EXPORT_NAME:
                return self._close("EXPORT_NAME without TLS")
            return _reply(option, Reply.ERR_TLS_REQD, b"only over TLS")
        if option == Option.EXPORT_NAME:
            return self._export_name(data)
        handle = _ANSWERS.get(option)
        if handle is None:
            return _reply(option, Reply.ERR_UNSUP, b"not supported")
        try:
            return b"".join([*handle(self, data), _reply(option, Reply.ACK)])
        except _RefusedError as error:
            return _reply(option, error.reply, str(error).encode())

    def _start_tls(self, data: bytes) -> bytes:
        if not self._tls:
            return _reply(Option.STARTTLS, Reply.ERR_UNSUP, b"no TLS here")
        if self._secure or data:
            return _reply(Option.STARTTLS, Reply.ERR_INVALID, b"TLS already" if self._secure else b"no data expected")
        self.state = State.UPGRADE
        return _reply(Option.STARTTLS, Reply.ACK)

    def _export_name(self, data: bytes) -> bytes:
        try:
            export = self._find(data)
        except _RefusedError as error:
            return self._close(f"EXPORT_NAME: {error}")
        session = self._begin(export)
        zeroes = b"" if self._flags is not None and self._flags & NO_ZEROES else ZEROES
        return EXPORT_START.pack(export.size, session.flags) + zeroes

    def _begin(self, export: Export) -> Session:
        contexts = self._selected[1] if self._selected and self._selected[0] is export else ()
        self._session = Session(export, self._structured, contexts)
        self.state = State.TRANSMIT
        return self._session

    def _find(self, name: bytes) -> Export:
        if len(name) > NAME_SIZE or b"\0" in name:
            raise _RefusedError(Reply.ERR_INVALID, f"a name of {len(name)} bytes, or with NUL")
        try:
            export = self._exports.find(name.decode())
        except UnicodeDecodeError:
            raise _RefusedError(Reply.ERR_INVALID, "a name that is not UTF-8") from None
        if export is None:
            raise _RefusedError(Reply.ERR_UNKNOWN, "no such export")
        return export

    # Each of these gives the replies before the final acknowledgement.

    def _list(self, data: bytes) -> Iterator[bytes]:
        _expect_nothing(data)
        for export in self._exports:
            name, words = export.name.encode(), export.description.encode()
            yield _reply(Option.LIST, Reply.SERVER, U32.pack(len(name)) + name + words)

    def _structured_reply(self, data: bytes) -> Iterator[bytes]:
        _expect_nothing(data)
        self._structured = True
        return iter(())

    def _info(self, data: bytes) -> Iterator[bytes]:
        return self._describe(Option.INFO, data)[1]

    def _go(self, data: bytes) -> Iterator[bytes]:
        export, replies = self._describe(Option.GO, data)
        self._begin(export)
        return replies

    def _describe(self, option: Option, data: bytes) -> tuple[Export, Iterator[bytes]]:
        name, position = _string(data, 0)
        rest = data[position:]
        if len(rest) < U16.size or len(rest) != U16.size + U16.size * U16.unpack_from(rest)[0]:
            raise _RefusedError(Reply.ERR_INVALID, "lengths that contradict each other")
        wanted = {request for (request,) in U16.iter_unpack(rest[U16.size :])}
        export = self._find(name)
        return export, self._infos(option, export, wanted)

    def _infos(self, option: Option, export: Export, wanted: set[int]) -> Iterator[bytes]:
        flags = Session(export, self._structured).flags
        yield _reply(option, Reply.INFO, INFO_EXPORT.pack(Info.EXPORT, export.size, flags))
        if Info.NAME in wanted:
            yield _reply(option, Reply.INFO, INFO_HEAD.pack(Info.NAME) + export.name.encode())
        if Info.DESCRIPTION in wanted and export.description:
            yield _reply(option, Reply.INFO, INFO_HEAD.pack(Info.DESCRIPTION) + export.description.encode())
        # Told unasked where it matters: a client that does not know it would be refused.
        if Info.BLOCK_SIZE in wanted or export.blocks.minimum > 1:
            sizes = (export.blocks.minimum, export.blocks.preferred, self._limits.nbd_request_size)
            yield _reply(option, Reply.INFO, INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes))

    def _list_meta_context(self, data: bytes) -> Iterator[bytes]:
        export, queries = self._queries(data)
        # A namespace alone asks for all that is in it.
        return (
            _reply(Option.LIST_META_CONTEXT, Reply.META_CONTEXT, U32.pack(0) + name.encode())
            for name in contexts_of(export)
            if not queries or name.encode() in queries or name.encode().partition(b":")[0] + b":" in queries
        )

    def _set_meta_context(self, data: bytes) -> Iterator[bytes]:
        self._selected = None  # even if this one fails
        if not self._structured:
            raise _RefusedError(Reply.ERR_INVALID, "structured replies come first")
        export, queries = self._queries(data)
        offered = contexts_of(export)
        selected = tuple(name for name in offered if name.encode() in queries)
        self._selected = (export, selected)
        return (
            _reply(Option.SET_META_CONTEXT, Reply.META_CONTEXT, U32.pack(CONTEXTS[name]) + name.encode())
            for name in selected
        )

    def _queries(self, data: bytes) -> tuple[Export, set[bytes]]:
        name, position = _string(data, 0)
        if len(data) - position < U32.size:
            raise _RefusedError(Reply.ERR_INVALID, "no number of queries")
        (count,) = U32.unpack_from(data, position)
        position += U32.size
        if count > (len(data) - position) // U32.size:
            raise _RefusedError(Reply.ERR_INVALID, f"{count} queries in {len(data) - position} bytes")
        queries = set()
        for _ in range(count):
            query, position = _string(data, position)
            queries.add(query)
        if position != len(data):
            raise _RefusedError(Reply.ERR_INVALID, f"{len(data) - position} bytes behind the last query")
        return self._find(name), queries


_ANSWERS: dict[int, Callable[[Handshake, bytes], Iterator[bytes]]] = {
    Option.LIST: Handshake._list,
    Option.INFO: Handshake._info,
    Option.GO: Handshake._go,
    Option.STRUCTURED_REPLY: Handshake._structured_reply,
    Option.LIST_META_CONTEXT: Handshake._list_meta_context,
    Option.SET_META_CONTEXT: Handshake._set_meta_context,
}


def _reply(option: int, reply: Reply, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, reply, len(data)) + data


def _expect_nothing(data: bytes) -> None:
    if data:
        raise _RefusedError(Reply.ERR_INVALID, f"{len(data)} bytes where none belong")


def _string(data: bytes, position: int) -> tuple[bytes, int]:
    """The string with its length before it, and where it ends."""
    if len(data) - position < U32.size:
        raise _RefusedError(Reply.ERR_INVALID, "no room for the length of a string")
    (size,) = U32.unpack_from(data, position)
    position += U32.size
    if size > len(data) - position or size > NAME_SIZE:
        raise _RefusedError(Reply.ERR_INVALID, f"a string of {size} bytes")
    return data[position : position + size], position + size
