# SPDX-License-Identifier: Apache-2.0
"""Stores that hold a file for each chunk, as a ladder: what can be read, what can be added to, what can be pruned.

Paths are relative to the store, `FOLDER/NAME`, and made from digests alone. A store that is only read is never
changed, not even made. Decorators of the lowest rung are in `regraft.engine.chunkcache`.
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NamedTuple, Protocol

from regraft.engine.files import FileFolders, open_source
from regraft.engine.medium import Directory, Lock
from regraft.errors import BusyError, LimitError, MediumError, RegraftError, SourceError
from regraft.model.buffers import Buffer

#: Files read at once from a local store.
LOCAL_THREADS = 4

TEMPORARY = ".tmp"  #: the end of names that mean nothing yet; casync's too


class ReadStore(Protocol):
    """A place with chunk files. Thread-safe."""

    @property
    def location(self) -> str:
        """For messages: a path or a URL."""

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        """The whole of the first of these files that is there, None if there is none.

        Raises LimitError for a file of more than `maximum` bytes, SourceError, TransportError.
        """

    def absent(self, paths: Sequence[str]) -> RegraftError:
        """What to raise when a chunk that nothing replaces is not there."""

    def abort(self) -> None:
        """Nobody waits for running reads any more: end them if possible."""


class WriteStore(ReadStore, Protocol):
    """One that takes chunks, too."""

    def has(self, paths: Sequence[str]) -> bool:
        """Whether any of these files is there. Raises MediumError."""

    def put(self, path: str, content: Buffer, *, replace: bool = False) -> None:
        """Have this file in the store: whole or not at all, durably but for its name (see `sync`).

        What is there under this name is kept, unless `replace`. Raises MediumError, SpaceError.
        """

    def sync(self) -> None:
        """Make the names of all that was put durable: an index may now speak of them. Raises MediumError."""

    def adding(self) -> AbstractContextManager[None]:
        """Nothing is pruned while this lasts: until the index of what is put is there, nobody else knows it."""


class StoredFile(NamedTuple):
    """A file of a store. size: in bytes. changed: when, in seconds since 1970."""

    path: str
    size: int
    changed: float


class PruneStore(WriteStore, Protocol):
    """One that gives chunks up, too."""

    def files(self) -> Iterator[StoredFile]:
        """All regular files in its folders, whatever their names. Raises MediumError."""

    def remove(self, path: str) -> None:
        """Remove this file if it is there. Raises MediumError."""

    def pruning(self) -> AbstractContextManager[None]:
        """Nobody is `adding` while this lasts. Raises BusyError if somebody is."""


class Folders(Protocol):
    """The folders of a store: what survives a power cut. Thread-safe."""

    def open(self, name: str) -> AbstractContextManager[Directory]:
        """The folder of this name, made if there is none."""

    def files(self) -> Iterator[tuple[str, int, float]]:
        """Path, size and time of change of every regular file in a folder."""

    def lock(self, *, shared: bool = False, wait: bool = True) -> Lock:
        """Lock the store, as `Directory.lock`."""

    def sync(self) -> None:
        """Return when the names of the folders are durable."""


class LocalStore:
    """A folder, on all rungs. What is neither a file nor a link to one is not there: casync marks so what it knows to
    be missing.

    Who adds and who prunes lock the folder itself, against each other; who only reads does not.
    """

    def __init__(self, folder: str, folders: Folders | None = None) -> None:
        """folders: what to write by, instead of the folders of `folder`, which is made when it is first written to."""
        self.location = folder
        self._made = folders
        self._lock = threading.Lock()
        self._changed: set[str] = set()  # folders whose names are not durable yet

    # -- read ---------------------------------------------------------------------------------------------------------

    def read(self, paths: Sequence[str], maximum: int) -> Buffer | None:
        for path in paths:
            full = f"{self.location}/{path}"
            try:
                if not stat.S_ISREG(os.stat(full).st_mode):
                    continue
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise SourceError(f"{full}: {error.strerror}") from None
            medium = open_source(full)
            try:
                size = medium.size
                if size > maximum:
                    raise LimitError(f"{full} has {size} bytes, more than the {maximum} that its chunk can take")
                data = bytearray(size)
                if medium.read_into(0, memoryview(data)) < size:
                    raise SourceError(f"{full} became shorter while it was read")
                return data
            finally:
                medium.close()
        return None

    def absent(self, paths: Sequence[str]) -> RegraftError:
        return SourceError(
            f"the chunk {paths[0]} is not in {self.location}",
            cure="name the stores that have the chunks with --store, or get the missing ones from the publisher",
        )

    def abort(self) -> None: ...

    # -- write --------------------------------------------------------------------------------------------------------

    def has(self, paths: Sequence[str]) -> bool:
        for path in paths:
            folder, _, name = path.rpartition("/")
            with self._folders.open(folder) as directory:
                if directory.exists(name):
                    return True
        return False

    def put(self, path: str, content: Buffer, *, replace: bool = False) -> None:
        folder, _, name = path.rpartition("/")
        with self._folders.open(folder) as directory:
            if not replace and directory.exists(name):
                return
            _write(directory, name, content)
        with self._lock:
            self._changed.add(folder)

    def sync(self) -> None:
        with self._lock:
            changed, self._changed = sorted(self._changed), set()
        for folder in changed:
            with self._folders.open(folder) as directory:
                directory.sync_directory()
        self._folders.sync()

    @contextmanager
    def adding(self) -> Iterator[None]:
        lock: Lock | None = None
        with suppress(MediumError):  # where a folder cannot be locked, nobody can prune
            lock = self._folders.lock(shared=True)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    # -- prune --------------------------------------------------------------------------------------------------------

    def files(self) -> Iterator[StoredFile]:
        return (StoredFile(*found) for found in self._folders.files())

    def remove(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        with self._folders.open(folder) as directory:
            directory.remove(name)
        with self._lock:
            self._changed.add(folder)

    @contextmanager
    def pruning(self) -> Iterator[None]:
        try:
            lock = self._folders.lock(wait=False)
        except BusyError:
            raise BusyError(f"{self.location}: chunks are being added, or it is being pruned, right now") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def _folders(self) -> Folders:
        with self._lock:
            if self._made is None:
                self._made = FileFolders(self.location)
            return self._made


def _write(directory: Directory, name: str, content: Buffer) -> None:
    """Another name first, so that a chunk file under its own is whole whatever happens."""
    temporary = f"{name}.{secrets.token_hex(8)}{TEMPORARY}"
    try:
        medium = directory.create(temporary)
        try:
            medium.write(0, content)
            medium.sync()
        finally:
            medium.close()
        directory.replace(temporary, name)
    except BaseException:
        with suppress(RegraftError):
            directory.remove(temporary)
        raise
