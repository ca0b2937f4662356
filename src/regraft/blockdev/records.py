# SPDX-License-Identifier: Apache-2.0
"""What is kept of each mount, in the folder `mounts` of the state folder: a record, and a socket beside it by which
its daemon is asked.

Records say what cannot be asked any more when a daemon has died. They are written anew at every start; what the kernel
says counts more.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from regraft.blockdev.attachment import index_of
from regraft.blockdev.device_mapper import FOLDER as MAPPER
from regraft.blockdev.device_mapper import is_name
from regraft.engine.files import FileDirectory
from regraft.engine.medium import read_all, save
from regraft.engine.state import state_folder
from regraft.errors import FormatError, MediumError, MountError, RegraftError, StateError, UsageError
from regraft.formats import strict_json
from regraft.limits import DEFAULT, Limits

VERSION = 1
_ANSWER_TIME = 30.0
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Record:
    """One mount. target: the device or the file. what: what was mounted, with an absolute path. Times in seconds.

    keep: where what is fetched is kept. mapper: the name of the dm-verity device above it, empty if there is none;
    root_hash: of that.

    Of an overlay, whose record outlives its daemon and the system's run: base: the device that becomes the image;
    device: of NBD, below the target; merging: whether it was told to merge; merged: whether all of it is in the base;
    blocks: how many differed; swap: whether the target then goes over to the base by itself.
    """

    kind: str  #: "nbd", "fuse" or "overlay"
    target: str
    what: str
    size: int
    pid: int
    identifier: str = ""
    connections: int = 1
    timeout: int = 0
    dead_timeout: int = 0
    name: str = ""
    mapper: str = ""
    root_hash: str = ""
    hash_offset: int = 0
    tree: str = ""
    keep: str = ""
    base: str = ""
    device: str = ""
    merging: bool = False
    merged: bool = False
    blocks: int = 0
    swap: bool = True

    @property
    def stem(self) -> str:
        return stem_of(self.target)


def stem_of(target: str) -> str:
    """The name of a mount's files: of the device, or a digest of the file's path. Nothing else becomes one."""
    if target.startswith(f"{MAPPER}/") and is_name(name := target.removeprefix(f"{MAPPER}/")):
        return f"mapper-{name}"
    try:
        return f"nbd{index_of(target)}"
    except UsageError:
        return f"file-{hashlib.sha256(os.fsencode(os.path.realpath(target))).hexdigest()[:24]}"


def folder() -> str:
    return os.path.join(state_folder(), "mounts")


def _make_folder() -> None:
    """Only for this user: a record may hold a URL with a password. Raises MediumError."""
    try:
        os.makedirs(state_folder(), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(folder(), 0o700)
    except OSError as error:
        raise MediumError(f"make {folder()}: {error.strerror}") from None


def parse(content: bytes) -> Record:
    """A record. Raises StateError."""
    try:
        found = strict_json.parse(content)
    except RegraftError as error:
        raise StateError(f"the record of a mount: {error}") from None
    if not isinstance(found, dict) or found.pop("version", None) != VERSION:
        raise StateError("the record of a mount is of another version")
    known = {field.name: type(field.default) for field in fields(Record)}
    known |= dict.fromkeys(("kind", "target", "what"), str) | dict.fromkeys(("size", "pid"), int)
    if not {"kind", "target", "what", "size", "pid"} <= found.keys() <= known.keys():
        raise StateError(f"the record of a mount has the fields {', '.join(sorted(found))}")
    values: dict[str, Any] = dict(found)
    for name, value in values.items():
        if type(value) is not known[name] or (isinstance(value, int) and not 0 <= value < 1 << 62):
            raise StateError(f"the record of a mount has {name} = {value!r}")
    if values["kind"] not in ("nbd", "fuse", "overlay"):
        raise StateError(f"the record of a mount is of the kind {values['kind']!r}")
    return Record(**values)


def build(record: Record) -> bytes:
    return json.dumps({"version": VERSION, **asdict(record)}, indent=1).encode()


def write(record: Record) -> None:
    """Keep a record, in place of an older one of the same target. Raises MediumError."""
    _make_folder()
    directory = FileDirectory(folder())
    try:
        save(directory, record.stem + _SUFFIX, build(record))
    finally:
        directory.close()


def remove(stem: str) -> None:
    """Forget a mount. Raises MediumError."""
    directory = FileDirectory(folder())
    try:
        directory.remove(stem + _SUFFIX)
        directory.remove(stem + ".sock")
    finally:
        directory.close()


def load(target: str, *, limits: Limits = DEFAULT) -> Record | None:
    """The record of a device or file; None if there is none. Raises StateError if it cannot be used."""
    return _load(stem_of(target), limits)


def _load(stem: str, limits: Limits) -> Record | None:
    path = os.path.join(folder(), stem + _SUFFIX)
    if not os.path.exists(path):
        return None
    directory = FileDirectory(folder())
    try:
        medium = directory.open(stem + _SUFFIX)
        try:
            return parse(read_all(medium, limits.mount_record))
        finally:
            medium.close()
    except ValueError as error:
        raise StateError(str(error)) from None
    except FileNotFoundError:
        return None
    except StateError as error:
        raise StateError(f"{path}: {error}") from None
    finally:
        directory.close()


def every(*, limits: Limits = DEFAULT) -> list[Record]:
    """All that can be read, in order of their names. Raises StateError if this user may not look."""
    found = []
    try:
        names = sorted(os.listdir(folder()))
    except PermissionError as error:
        raise StateError(
            f"look into {folder()}: {error.strerror}", cure="ask as the user who mounts, e.g. root"
        ) from None
    except OSError:
        return []
    for name in names:
        if name.endswith(_SUFFIX):
            with suppress(RegraftError):
                record = _load(name.removesuffix(_SUFFIX), limits)
                if record is not None:
                    found.append(record)
    return found


def listen(stem: str) -> socket.socket:
    """The socket by which the daemon of a mount is asked, only by this user. It replaces one that a dead one left.

    Raises MountError.
    """
    _make_folder()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = f"{stem}.sock.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=descriptor)
        os.fchmod(listener.fileno(), 0o600)
        # By the descriptor: the path of a socket may not have more than 107 bytes.
        listener.bind(f"/proc/self/fd/{descriptor}/{fresh}")
        listener.listen(8)
        os.replace(fresh, f"{stem}.sock", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except OSError as error:
        listener.close()
        raise MountError(f"listen on {folder()}/{stem}.sock: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return listener


def connect(stem: str) -> socket.socket | None:
    """A line to the daemon of a mount; None if it does not live. Raises StateError if nobody can tell."""
    try:
        descriptor = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _check_absent(stem, error)
        return None
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.settimeout(_ANSWER_TIME)
    try:
        line.connect(f"/proc/self/fd/{descriptor}/{stem}.sock")
    except OSError as error:
        line.close()
        _check_absent(stem, error)
        return None
    finally:
        os.close(descriptor)
    return line


def _check_absent(stem: str, error: OSError) -> None:
    """Raise StateError unless the error says that there is no daemon: who may not ask must not take it for dead."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError | ConnectionRefusedError):
        raise StateError(
            f"the daemon of {stem} cannot be asked: {error.strerror}", cure="ask as the user who mounted it, e.g. root"
        ) from None


def say(line: socket.socket, fields: dict[str, Any]) -> None:
    """Send one JSON object. Raises OSError."""
    line.send(json.dumps(fields).encode())


def peek(line: socket.socket) -> dict[str, Any]:
    """The JSON object that comes next, which stays where it is. Raises as `hear` does."""
    return hear(line, flags=socket.MSG_PEEK)


def hear(line: socket.socket, *, flags: int = 0, limits: Limits = DEFAULT) -> dict[str, Any]:
    """Receive one JSON object. Raises FormatError, and OSError if the other side is gone."""
    data = line.recv(limits.mount_record, flags)
    if not data:
        raise ConnectionResetError("the other side has closed")
    found = strict_json.parse(data)
    if not isinstance(found, dict):
        raise FormatError("an answer that is no object")
    return found


def ask(stem: str, question: str, **fields: Any) -> dict[str, Any] | None:
    """What the daemon of a mount answers; None if it does not live. Raises StateError if it refuses."""
    line = connect(stem)
    if line is None:
        return None
    with line:
        try:
            say(line, {"ask": question, **fields})
            answer = hear(line)
        except OSError as error:
            raise StateError(f"the daemon of {stem} does not answer: {error}", cure="see its log, or end it") from None
        except RegraftError as error:
            raise StateError(f"the daemon of {stem} said what cannot be understood: {error}") from None
    return answer
