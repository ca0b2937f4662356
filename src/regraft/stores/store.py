# SPDX-License-Identifier: Apache-2.0
"""A chunk store: its folder, its images, its locks.

Roots, from which `gc` marks, are the descriptions of images and the intents of clones. They come and go under the
store's lock, which is held for moments only. An open image holds a shared lock on its description: it cannot be removed
or replaced meanwhile. Packs are read through descriptors, so one that `gc` drops stays readable to who has it open.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from regraft.engine.files import FileDirectory
from regraft.engine.medium import Directory, read_all, save
from regraft.errors import BusyError, LimitError, MissingError, RegraftError, StateError, UnsupportedError
from regraft.formats import image_description
from regraft.formats.image_description import Description
from regraft.limits import DEFAULT, Limits
from regraft.stores import names
from regraft.stores.image import StoredImage, open_image

_MARK = b"regraft chunk store\nversion 1\n"
_CASYNC = re.compile(r"[0-9a-f]{4}")  # folders of a casync store


class Store:
    """An open store. Make one with `open_store`; close it, or use it as a context manager."""

    def __init__(self, directory: Directory, *, limits: Limits = DEFAULT) -> None:
        self.directory, self.limits = directory, limits

    @property
    def path(self) -> str:
        return self.directory.path

    def __enter__(self) -> Store:  # noqa: PYI034 - not meant for subclasses
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self.directory, FileDirectory):
            self.directory.close()

    # -- locks --------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """While this lasts no root appears or goes, and no pack is dropped. Waits for its turn."""
        lock = self.directory.lock(names.LOCK, shared=shared)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Held by the one `gc` that runs. Raises BusyError."""
        lock = self.directory.lock(names.MARKER, wait=False)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def claimed(self, file: str) -> Iterator[None]:
        """Nobody else has this file open: a description, or the intent of a clone. Nothing, if it is not there.

        Raises BusyError, which says what the file is in use for.
        """
        with ExitStack() as held:
            with suppress(FileNotFoundError):
                held.callback(self._claim(file))
            yield

    def _claim(self, file: str) -> Callable[[], None]:
        try:
            return self.directory.lock(file, wait=False).release
        except BusyError:
            name, suffix = os.path.splitext(file)
            doing = "being cloned by another process" if suffix == names.PARTIAL else "in use: mounted, served or read"
            raise BusyError(f"{self.path}/{name} is {doing}") from None

    def in_use(self, name: str) -> bool:
        """Whether somebody has the image open."""
        try:
            with self.claimed(name + names.IMAGE):
                return False
        except BusyError:
            return True

    # -- images -------------------------------------------------------------------------------------------------------

    def images(self) -> list[str]:
        """The names of all images, in order."""
        return names.with_suffix(self.directory.names(), names.IMAGE)

    def partials(self) -> list[str]:
        """The names of images whose clone runs or was interrupted."""
        return names.with_suffix(self.directory.names(), names.PARTIAL)

    def pinned(self, name: str) -> bool:
        return self.directory.exists(name + names.PIN)

    def description(self, name: str, suffix: str = names.IMAGE) -> Description:
        """What the store knows of an image, or (`names.PARTIAL`) of one that is being cloned.

        Raises MissingError, or StateError and FormatError if it is damaged.
        """
        names.check_name(name)
        try:
            medium = self.directory.open(name + suffix)
        except FileNotFoundError:
            raise MissingError(
                f"there is no image {name} in {self.path}", cure=f"`regraft store ls {self.path}` lists what there is"
            ) from None
        try:
            content = read_all(medium, self.limits.description_file)
        except ValueError as error:
            raise LimitError(f"{error} (description_file)") from None
        finally:
            medium.close()
        try:
            return image_description.parse(content, limits=self.limits)
        except StateError as error:
            raise StateError(
                f"{self.path}/{name}{suffix}: {error}",
                cure=f"clone it again with --replace, or remove it: regraft store rm {self.path} {name}"
                if suffix == names.IMAGE
                else f"clone it again, or remove it: regraft store rm {self.path} {name}",
            ) from None

    def roots(self) -> Iterator[tuple[str, Description]]:
        """(file, description) of everything that keeps chunks alive. To be read under the lock."""
        there = self.directory.names()
        for suffix in (names.IMAGE, names.PARTIAL):
            for name in names.with_suffix(there, suffix):
                yield name + suffix, self.description(name, suffix)

    @contextmanager
    def image(self, name: str) -> Iterator[StoredImage]:
        """Open an image for reading; it cannot be removed while it is open.

        Raises MissingError, StateError; a chunk that is not in the store is an error when it is read.
        """
        with ExitStack() as held:
            with self.locked(shared=True):
                names.check_name(name)
                with suppress(FileNotFoundError):  # then `description` says so
                    held.callback(self.directory.lock(name + names.IMAGE, shared=True).release)
                description = self.description(name)
                opened = open_image(self.directory, name, description, self.limits)
            held.callback(opened.close)
            yield opened

    def pin(self, name: str) -> None:
        """Keep `rm` and `clone --replace` from the image."""
        with self.locked():
            if not self.directory.exists(names.check_name(name) + names.IMAGE):
                self.description(name)
            self.directory.create(name + names.PIN).close()
            self.directory.sync_directory()

    def unpin(self, name: str) -> None:
        with self.locked():
            if not self.pinned(names.check_name(name)):
                self.description(name)
            self.directory.remove(name + names.PIN)
            self.directory.sync_directory()

    def check_unpinned(self, name: str) -> None:
        """Raises StateError."""
        if self.pinned(name):
            raise StateError(
                f"{self.path}/{name} is pinned", cure=f"unpin it first: regraft store unpin {self.path} {name}"
            )

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove an image, and what an interrupted clone of it left. Its chunks stay until `gc`.

        force: though it is pinned. Raises BusyError while it is open or being cloned, StateError, MissingError.
        """
        files = [names.check_name(name) + suffix for suffix in (names.PIN, names.IMAGE, names.PARTIAL)]
        with self.locked():
            if not any(map(self.directory.exists, files[1:])):
                self.description(name)
            if not force:
                self.check_unpinned(name)
            with self.claimed(files[1]), self.claimed(files[2]):
                for file in files:  # the pin first: it must not outlive the image and hold the next one of that name
                    if self.directory.exists(file):
                        self.directory.remove(file)
                self.directory.sync_directory()


def open_store(place: str | Directory, *, create: bool = False, limits: Limits = DEFAULT) -> Store:
    """The store in the folder `place`. create: make it if the folder is empty or not there.

    Raises StateError if it is none, UnsupportedError if it is one of a later version of regraft.
    """
    if isinstance(place, str):
        if not create and not os.path.isdir(place):
            raise StateError(f"{place} is not a chunk store", cure="`regraft clone` makes one")
        directory: Directory = FileDirectory(place)
    else:
        directory = place
    store = Store(directory, limits=limits)
    try:
        _check_mark(store, create)
    except BaseException:
        store.close()
        raise
    return store


def holds_chunk_files(path: str) -> bool:
    """Whether this folder looks like a casync store, which has no mark: folders named by first digits of digests."""
    if not os.path.isdir(path):
        return False
    content = os.listdir(path)
    return names.MARKER not in content and any(_CASYNC.fullmatch(name) for name in content)


def check_chunk_files(path: str) -> None:
    """Raise StateError if this folder is a store of packs, and not one with a file for each chunk, or if it is neither.

    An empty one passes.
    """
    content = os.listdir(path)
    if names.MARKER in content:
        raise StateError(
            f"{path} is a chunk store of `regraft clone`, not a casync store", cure="use `regraft store gc` on it"
        )
    if content and not holds_chunk_files(path):
        raise StateError(f"{path} is not a casync store: it holds {min(content)}", cure="give a .castr folder")


def _check_mark(store: Store, create: bool) -> None:
    directory = store.directory
    try:
        medium = directory.open(names.MARKER)
    except FileNotFoundError:
        _begin(store, create)
        return
    try:
        content = read_all(medium, 4096)
    except ValueError:
        content = b""
    finally:
        medium.close()
    if not content.startswith(_MARK.split(b"version")[0]):
        raise StateError(f"{store.path} is not a chunk store", cure="give the folder of one")
    if content != _MARK:
        raise UnsupportedError(f"{store.path} is a chunk store of another version", cure="use a newer regraft")
    if not directory.exists(names.LOCK):
        directory.create(names.LOCK).close()


def _begin(store: Store, create: bool) -> None:
    directory = store.directory
    others = [name for name in directory.names() if name not in (names.LOCK, names.MARKER + names.NEW, "lost+found")]
    if others or not create:
        cure = "give an empty folder, or none" if create else "`regraft clone` makes one"
        if any(_CASYNC.fullmatch(name) for name in others):
            cure = "it looks like a casync store: `regraft pack caibx` and `regraft store prune` are for those"
        raise StateError(
            f"{store.path} is not a chunk store" + (f": it holds {others[0]}" if others else ""), cure=cure
        )
    directory.create(names.LOCK).close()
    with store.locked():
        if not directory.exists(names.MARKER):
            save(directory, names.MARKER, _MARK)
    if isinstance(directory, FileDirectory):
        parent = FileDirectory(os.path.dirname(os.path.realpath(directory.path)))
        with suppress(RegraftError):
            parent.sync_directory()
        parent.close()
