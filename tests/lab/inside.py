# SPDX-License-Identifier: Apache-2.0
"""Helpers for functions that run in the guest; those that read files run on the host as well, for comparison.

Nothing here may need more than the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None, use_errno=True)
READ_ONLY = 1


def mount(source: str, target: str, kind: str, flags: int = READ_ONLY, options: str = "") -> None:
    """mount(2); makes the folder. Raises OSError."""
    os.makedirs(target, exist_ok=True)
    texts = [text.encode() for text in (source, target, kind)]
    if _LIBC.mount(*texts, ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} as {kind}: {os.strerror(number)}")


def umount(target: str, *, detach: bool = False) -> None:
    """umount2(2). Raises OSError."""
    if _LIBC.umount2(target.encode(), 2 if detach else 0):
        number = ctypes.get_errno()
        raise OSError(number, f"umount {target}: {os.strerror(number)}")


@contextmanager
def mounted(source: str, target: str, kind: str, flags: int = READ_ONLY, options: str = "") -> Iterator[str]:
    """The folder with `source` mounted on it."""
    mount(source, target, kind, flags, options)
    try:
        yield target
    finally:
        umount(target)


def digests(folder: str, *, forget: bool = False) -> dict[str, str]:
    """The SHA-256 of every regular file, the target of every link, by the path below `folder`.

    forget: afterwards the kernel keeps nothing of the files' content, so that the next call reads the device again.
    """
    found = {}
    for path, _, names in os.walk(folder, onerror=_fail):
        for name in names:
            whole = os.path.join(path, name)
            if os.path.islink(whole):
                found[os.path.relpath(whole, folder)] = "-> " + os.readlink(whole)
                continue
            with open(whole, "rb") as file:
                found[os.path.relpath(whole, folder)] = hashlib.file_digest(file, "sha256").hexdigest()
                if forget:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return found


def _fail(error: OSError) -> None:
    raise error


def forget() -> None:
    """Drop what the kernel keeps of all clean files and devices, programs included: slow, where they then run on."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3")


def run(*argv: str, timeout: float = 30) -> str:
    """The standard output of a program that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv}: status {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


def until(condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    """Wait until `condition()` is true. Raises TimeoutError."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.02)


def failing_blocks(device: str, block: int = 4096, stride: int = 64) -> list[int]:
    """The numbers of the blocks that cannot be read from the device. Other errors than EIO are raised.

    `stride` blocks are tried at once; only where that fails, each by itself.
    """
    bad = []
    forget()
    handle = os.open(device, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        count = os.lseek(handle, 0, os.SEEK_END) // block
        for first in range(0, count, stride):
            most = min(stride, count - first)
            if not _readable(handle, first * block, most * block):
                blocks = range(first, first + most)
                bad += [number for number in blocks if not _readable(handle, number * block, block)]
    finally:
        os.close(handle)
    return bad


def _readable(handle: int, offset: int, length: int) -> bool:
    try:
        return len(os.pread(handle, length, offset)) == length
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
