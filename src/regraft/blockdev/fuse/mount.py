# SPDX-License-Identifier: Apache-2.0
"""An export mounted as a file: /dev/fuse, the threads that answer it, and the mount itself."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from regraft.blockdev import mounting
from regraft.blockdev.export import Export
from regraft.blockdev.fuse.protocol import IN_HEADER, REQUEST_SIZE, OneFile, Owner, parse, reply
from regraft.blockdev.mounting import MountFlag, UnmountFlag
from regraft.errors import BusyError, MissingError, MountError, RegraftError, UsageError
from regraft.limits import DEFAULT, Limits

DEVICE = "/dev/fuse"
KIND = "fuse.regraft"
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)  # what users of a mount get whose daemon has died
_LETTING_GO = 10.0  # seconds; who asks the daemon waits for longer
_ENDED = (errno.ENODEV, errno.ECONNABORTED)
_GONE = (errno.ENOENT, errno.EINTR, errno.EAGAIN)  # a request that was withdrawn before we had it


class FuseFile:
    """`export` as the content of the file at `path`, until it is unmounted. Use `mount_file` to get one."""

    def __init__(self, descriptor: int, path: str, made: bool, file: OneFile, report: Callable[[str], None]) -> None:
        self.path = path
        self._descriptor, self._made, self._file, self._report = descriptor, made, file, report
        self._ready = threading.Event()
        self._unmounted = False
        self._threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        self._threads = [
            threading.Thread(target=self._serve, name=f"regraft-fuse-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Return when the kernel and we have agreed on a version. Raises MountError."""
        self._ready.wait(timeout)
        if not self._file.minor:
            raise MountError(f"{self.path}: the kernel did not greet within {timeout:g} s")

    @property
    def alive(self) -> bool:
        """Whether it is still mounted, or still open somewhere."""
        return any(thread.is_alive() for thread in self._threads)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the last user has gone after it was unmounted, for `timeout` seconds; whether that is so."""
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            thread.join(None if end is None else max(end - time.monotonic(), 0))
        return not self.alive

    def unmount(self, *, force: bool = False, timeout: float = _LETTING_GO) -> None:
        """Raises BusyError, and goes on serving, while the file is open; with `force` its readers get errors.

        So it does if the mount is gone here, but lives on elsewhere after `timeout` seconds.
        """
        if not self._unmounted:
            mounting.unmount(self.path, UnmountFlag.FORCE | UnmountFlag.DETACH if force else UnmountFlag(0))
            self._unmounted = True
        if not self.wait(timeout):
            raise BusyError(
                f"{self.path} is unmounted, but still held after {timeout:g} s, perhaps in another mount namespace",
                cure="end what holds it (a container, or a service with a mount namespace); the daemon then ends, too",
            )
        self.close()

    def close(self) -> None:
        """Let go of the device, after the mount has ended."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self._made:
                with suppress(OSError):
                    os.unlink(self.path)

    def _serve(self) -> None:
        received, room = memoryview(bytearray(REQUEST_SIZE)), memoryview(bytearray(self._file.reply_size))
        while True:
            try:
                count = os.readv(self._descriptor, [received])
            except OSError as error:
                if error.errno in _GONE:
                    continue
                if error.errno not in _ENDED:
                    self._report(f"read {DEVICE}: {error.strerror}")
                break
            answer = self._answer(received[:count], room)
            if answer is None:
                continue
            try:
                os.write(self._descriptor, answer)
            except OSError as error:
                if error.errno in _ENDED:
                    break
                if error.errno not in _GONE:
                    self._report(f"write {DEVICE}: {error.strerror}")
            if self._file.minor:
                self._ready.set()
        self._ready.set()

    def _answer(self, data: memoryview, room: memoryview) -> memoryview | bytes | None:
        try:
            return self._file.answer(data, room)
        except RegraftError as error:
            self._report(str(error))
        if len(data) < IN_HEADER.size:
            return None
        with suppress(RegraftError):
            return reply(parse(data).unique, error=errno.EPROTO)
        return reply(IN_HEADER.unpack_from(data)[2], error=errno.EIO)


def mount_file(
    export: Export,
    path: str,
    *,
    owner: Owner | None = None,
    report: Callable[[str], None] = lambda _: None,
    limits: Limits = DEFAULT,
    timeout: float = 10.0,
) -> FuseFile:
    """Make the file at `path` have the content of an export, for all users of this mount namespace.

    A file is made where there is none, and removed again at the end. A mount that a dead daemon left is replaced.
    Raises UsageError without root's rights or on something that is no file, BusyError if another is mounted there,
    MissingError without FUSE, MountError.
    """
    path = os.path.realpath(path)
    made = _prepare(path)
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        _undo(path, made)
        words = f"open {DEVICE}: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UsageError(words, cure="mounting needs root (CAP_SYS_ADMIN)") from None
        raise MissingError(words, cure="as root: modprobe fuse") from None
    owner = owner or Owner(os.geteuid(), os.getegid())
    options = (
        f"fd={descriptor},rootmode={stat.S_IFREG | owner.mode:o},user_id={owner.uid},group_id={owner.gid},"
        f"default_permissions,allow_other,max_read={limits.fuse_read_size}"
    )
    flags = MountFlag.READ_ONLY | MountFlag.NO_SUID | MountFlag.NO_DEVICES
    try:
        mounting.mount("regraft", path, KIND, flags, options)
    except BaseException:
        os.close(descriptor)
        _undo(path, made)
        raise
    file = FuseFile(descriptor, path, made, OneFile(export, owner=owner, report=report, limits=limits), report)
    file.start(limits.fuse_threads)
    try:
        file.wait_ready(timeout)
    except MountError:
        file.unmount(force=True)
        raise
    return file


def _prepare(path: str) -> bool:
    """See that there is a file to mount on; whether it was made."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        except OSError as error:
            raise UsageError(f"make {path}: {error.strerror}", cure="give a file that can be mounted on") from None
        return True
    except OSError as error:
        if error.errno not in _DEAD or not _is_ours(path):
            raise UsageError(f"{path}: {error.strerror}", cure="give a file that can be mounted on") from None
        mounting.unmount(path, UnmountFlag.DETACH)
        return _prepare(path)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file", cure="give a file that can be mounted on")
    if _is_ours(path) and _is_dead(path):
        mounting.unmount(path, UnmountFlag.DETACH)
        return _prepare(path)
    if _is_mounted(path):
        raise BusyError(f"something is mounted on {path}", cure=f"regraft umount {path}")
    return False


def _is_dead(path: str) -> bool:
    """Whether nobody answers: attributes may still be cached, so it is opened."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _DEAD
    return False


def _is_mounted(path: str) -> bool:
    return any(each.point == path for each in mounting.mounts())


def _is_ours(path: str) -> bool:
    return any(each.point == path and each.kind == KIND for each in mounting.mounts())


def _undo(path: str, made: bool) -> None:
    if made:
        with suppress(OSError):
            os.unlink(path)
