# SPDX-License-Identifier: Apache-2.0
"""Media on a real system: regular files, block devices, and the directory that holds state files."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from regraft.engine.medium import Medium
from regraft.errors import BusyError, MediumError, RegraftError, SourceError, SpaceError, TooSmallError
from regraft.model.buffers import Buffer

_BLKFLSBUF = 0x1261  # linux/fs.h
_BLKZEROOUT = 0x127F
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_ZEROS = bytes(1 << 20)
_PAGE = 4096
_WORTH_ZEROOUT = 16 * _PAGE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@contextmanager
def _failing_as(kind: type[RegraftError], doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpaceError(f"{doing}: {error.strerror}") from None
        raise kind(f"{doing}: {error.strerror}") from None


class FileMedium:
    """A regular file or block device. Use `open_source`, `open_target` or a `FileDirectory` to get one."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.is_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)

    @property
    def name(self) -> str:
        return self._name

    def fileno(self) -> int:
        return self._descriptor

    @property
    def size(self) -> int:
        if self.is_device:
            return os.lseek(self._descriptor, 0, os.SEEK_END)
        return os.fstat(self._descriptor).st_size

    @property
    def sparse(self) -> bool:
        return not self.is_device

    def read_into(self, offset: int, view: memoryview) -> int:
        try:
            done = os.preadv(self._descriptor, (view,), offset)
            while 0 < done < len(view):
                count = os.preadv(self._descriptor, (view[done:],), offset + done)
                if not count:
                    break
                done += count
        except OSError as error:
            raise SourceError(f"read {self._name} at {offset}: {error.strerror}") from None
        return done

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data).cast("B")
        if self.is_device and offset + len(view) > self.size:
            raise TooSmallError(f"{self._name} has {self.size} bytes, {offset + len(view)} are needed")
        done = 0
        with _failing_as(MediumError, f"write {self._name} at {offset}"):
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)

    def zero(self, offset: int, length: int) -> None:
        if length <= 0:
            return
        if self.is_device:
            self._zero_device(offset, length)
            return
        inside = min(length, max(self.size - offset, 0))
        if not inside or not _libc.fallocate(self._descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, inside):
            if inside < length:
                self.resize(offset + length)
            return
        self._write_zeros(offset, length)

    def _zero_device(self, offset: int, length: int) -> None:
        first, last = -(-offset // _PAGE) * _PAGE, (offset + length) // _PAGE * _PAGE
        if last - first >= _WORTH_ZEROOUT and last <= self.size:
            with suppress(OSError):  # not every driver can
                fcntl.ioctl(self._descriptor, _BLKZEROOUT, array.array("Q", [first, last - first]))
                self._write_zeros(offset, first - offset)
                self._write_zeros(last, offset + length - last)
                return
        self._write_zeros(offset, length)

    def _write_zeros(self, offset: int, length: int) -> None:
        for start in range(0, length, len(_ZEROS)):
            self.write(offset + start, _ZEROS[: length - start])

    def resize(self, size: int) -> None:
        if not self.is_device:
            with _failing_as(MediumError, f"resize {self._name} to {size}"):
                os.ftruncate(self._descriptor, size)
        elif self.size < size:
            raise TooSmallError(f"{self._name} has {self.size} bytes, the image {size}")

    def sync(self) -> None:
        with _failing_as(MediumError, f"sync {self._name}"):
            os.fdatasync(self._descriptor)

    def forget(self) -> None:
        with suppress(OSError):
            if self.is_device:
                fcntl.ioctl(self._descriptor, _BLKFLSBUF, 0)
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_source(path: str) -> FileMedium:
    """A seed or base, for reading. Raises SourceError."""
    with _failing_as(SourceError, f"open {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its other end
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(descriptor)
        raise SourceError(f"open {path}: neither a regular file nor a block device")
    return FileMedium(descriptor, path)


def open_target(path: str) -> FileMedium:
    """A slot or an image file, for reading and writing; a file is made if there is none.

    Locked until closed: two processes never write the same target. A block device that is mounted or otherwise held is
    refused. Raises BusyError, MediumError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    new = not os.path.exists(path)
    if not new and stat.S_ISBLK(os.stat(path).st_mode):
        flags |= os.O_EXCL  # on a block device: fail if the kernel uses it
    if new and not path.startswith("/dev/"):  # a missing device node is not an invitation
        flags |= os.O_CREAT
    try:
        with _failing_as(MediumError, f"open {path}"):
            descriptor = os.open(path, flags, 0o644)
    except MediumError as error:
        if flags & os.O_EXCL and os.strerror(errno.EBUSY) in str(error):
            raise BusyError(f"{path} is mounted or in use", cure="give the spare slot, not the running one") from None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise BusyError(f"{path} is being written by another process") from None
    if new:
        parent = FileDirectory(os.path.dirname(os.path.realpath(path)))
        parent.sync_directory()
        parent.close()
    medium = FileMedium(descriptor, path)
    if not medium.is_device and not stat.S_ISREG(os.fstat(descriptor).st_mode):
        medium.close()
        raise MediumError(f"{path} is neither a regular file nor a block device")
    return medium


class FileDirectory:
    """The `Directory` interface over a real folder."""

    def __init__(self, path: str) -> None:
        self.path = path
        with _failing_as(MediumError, f"make {path}"):
            os.makedirs(path, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        with _failing_as(MediumError, f"list {self.path}"):
            return sorted(os.listdir(self._descriptor))

    def free_space(self) -> int:
        with _failing_as(MediumError, f"look at the space in {self.path}"):
            found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def open(self, name: str) -> Medium:
        if not self.exists(name):
            raise FileNotFoundError(f"{self.path}/{name}")
        # What may not be written can still be read: a store on a read-only file system, or another user's.
        writable = os.access(name, os.W_OK, dir_fd=self._descriptor)
        return self._open(name, os.O_RDWR if writable else os.O_RDONLY)

    def create(self, name: str) -> Medium:
        return self._open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def _open(self, name: str, flags: int) -> FileMedium:
        with _failing_as(MediumError, f"open {self.path}/{name}"):
            descriptor = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=self._descriptor)
        return FileMedium(descriptor, f"{self.path}/{name}")

    def replace(self, old: str, new: str) -> None:
        with _failing_as(MediumError, f"rename {self.path}/{old}"):
            os.replace(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        with _failing_as(MediumError, f"remove {self.path}/{name}"), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def sync_directory(self) -> None:
        with _failing_as(MediumError, f"sync {self.path}"):
            os.fsync(self._descriptor)

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> FileLock:
        kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        while True:
            with _failing_as(MediumError, f"lock {self.path}/{name}"):
                try:
                    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._descriptor)
                except FileNotFoundError:
                    break
                lock = FileLock(descriptor)
                try:
                    fcntl.flock(descriptor, kind)
                    if self._is(name, descriptor):
                        return lock
                except BlockingIOError:
                    lock.release()
                    raise BusyError(f"{self.path}/{name} is in use by another process") from None
                except BaseException:
                    lock.release()
                    raise
                lock.release()  # replaced or removed while it was waited for: the name counts
        raise FileNotFoundError(f"{self.path}/{name}")

    def _is(self, name: str, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(name, dir_fd=self._descriptor), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileLock:
    """A flock, which ends with its process however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileFolders:
    """The folders of a folder, each a `Directory` while it is open."""

    def __init__(self, path: str) -> None:
        """Makes the folder if there is none. Raises MediumError."""
        self.path = path
        FileDirectory(path).close()

    @contextmanager
    def open(self, name: str) -> Iterator[FileDirectory]:
        """The folder of this name, made if there is none. Raises MediumError."""
        directory = FileDirectory(f"{self.path}/{name}")
        try:
            yield directory
        finally:
            directory.close()

    def files(self) -> Iterator[tuple[str, int, float]]:
        """Path in this folder, size in bytes and time of change of every regular file in its folders.

        Follows no links. Raises MediumError.
        """
        with _failing_as(MediumError, f"list {self.path}"):
            folders = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False))
        for folder in folders:
            with _failing_as(MediumError, f"list {self.path}/{folder}"):
                entries = sorted(os.scandir(f"{self.path}/{folder}"), key=lambda entry: entry.name)
            for entry in entries:
                with _failing_as(MediumError, f"look at {entry.path}"), suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        found = entry.stat(follow_symlinks=False)
                        yield f"{folder}/{entry.name}", found.st_size, found.st_mtime

    def lock(self, *, shared: bool = False, wait: bool = True) -> FileLock:
        """Lock this folder itself, as `Directory.lock` does files. Raises MediumError, BusyError."""
        directory = FileDirectory(self.path)
        try:
            return directory.lock(".", shared=shared, wait=wait)
        finally:
            directory.close()

    def sync(self) -> None:
        """Return when the names of the folders are durable, and that of this one."""
        for path in (self.path, os.path.dirname(os.path.realpath(self.path))):
            directory = FileDirectory(path)
            try:
                directory.sync_directory()
            finally:
                directory.close()


@contextmanager
def replacing(path: str) -> Iterator[Medium]:
    """A new empty file that takes the place of `path`, durably and at once, when the block ends without an error."""
    folder, name = FileDirectory(os.path.dirname(os.path.realpath(path))), os.path.basename(path)
    try:
        medium = folder.create(f"{name}.new")
        try:
            yield medium
            medium.sync()
            folder.replace(f"{name}.new", name)
            folder.sync_directory()
        except BaseException:
            folder.remove(f"{name}.new")
            raise
        finally:
            medium.close()
    finally:
        folder.close()
