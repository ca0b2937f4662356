# SPDX-License-Identifier: Apache-2.0
"""Connect the kernel's NBD client by ioctl (linux/nbd.h): for kernels before 4.12, or without NBD's netlink.

The thread in NBD_DO_IT *is* the client: when it ends, the device does. Sockets cannot be replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

from regraft.blockdev.attachment import SYSFS, Disk, index_of, is_attached, node_of, size_of
from regraft.errors import BusyError, MountError, RegraftError, UnsupportedError, UsageError

SET_SOCK, SET_BLKSIZE, SET_SIZE, DO_IT, CLEAR_SOCK, CLEAR_QUE = 0xAB00, 0xAB01, 0xAB02, 0xAB03, 0xAB04, 0xAB05
SET_SIZE_BLOCKS, DISCONNECT, SET_TIMEOUT, SET_FLAGS = 0xAB07, 0xAB08, 0xAB09, 0xAB0A
_READY = 10.0


def plan(disk: Disk, descriptors: Sequence[int]) -> list[tuple[int, int]]:
    """The calls that come before DO_IT, in the order that the kernel needs: request, argument."""
    calls = [(SET_BLKSIZE, disk.block_size), (SET_SIZE_BLOCKS, disk.size // disk.block_size)]
    if disk.timeout:
        calls.append((SET_TIMEOUT, disk.timeout))
    return [*calls, (SET_FLAGS, disk.flags), *((SET_SOCK, descriptor) for descriptor in descriptors)]


class IoctlAttachment:
    """The `Attachment` for old kernels. The device lives no longer than this process."""

    can_reconfigure = False

    def __init__(self, *, sysfs: str = SYSFS, ioctl: Callable[[int, int, int], int] = fcntl.ioctl) -> None:
        """`ioctl` stands for the kernel's, for tests."""
        self._sysfs, self._ioctl = sysfs, ioctl
        self._threads: dict[str, threading.Thread] = {}

    def attach(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> str:
        index = self._free() if device == "auto" else index_of(device)
        if is_attached(index, sysfs=self._sysfs):
            raise BusyError(f"/dev/nbd{index} is attached already", cure="take another device, or auto")
        node = node_of(index, sysfs=self._sysfs)
        try:
            descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            raise UsageError(f"open {node}: {error.strerror}", cure="this needs root (CAP_SYS_ADMIN)") from None
        except OSError as error:
            raise MountError(f"open {node}: {error.strerror}") from None
        failures: list[RegraftError] = []
        # The kernel wants all sockets from the task that then waits in DO_IT.
        copies = [each.dup() for each in sockets]
        arguments = (descriptor, node, copies, disk, failures)
        thread = threading.Thread(target=self._run, args=arguments, name=f"regraft-nbd{index}", daemon=True)
        thread.start()
        end = time.monotonic() + _READY
        while not (is_attached(index, sysfs=self._sysfs) and size_of(index, sysfs=self._sysfs) == disk.size):
            if not thread.is_alive() or time.monotonic() > end:
                raise failures[0] if failures else MountError(f"{node} does not become ready")
            time.sleep(0.01)
        self._threads[node] = thread
        return node

    def _run(
        self, descriptor: int, node: str, sockets: list[socket.socket], disk: Disk, failures: list[RegraftError]
    ) -> None:
        # A signal would end the wait in DO_IT, and with it the device.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._ioctl(descriptor, CLEAR_SOCK, 0)
            for request, argument in plan(disk, [each.fileno() for each in sockets]):
                self._ioctl(descriptor, request, argument)
            self._ioctl(descriptor, DO_IT, 0)
        except OSError as error:
            busy = error.errno == errno.EBUSY
            kind = BusyError if busy else UsageError if error.errno == errno.EPERM else MountError
            failures.append(kind(f"attach {node}: {error.strerror}"))
        finally:
            for each in sockets:
                each.close()
            for request in (CLEAR_QUE, CLEAR_SOCK):
                try:
                    self._ioctl(descriptor, request, 0)
                except OSError:
                    break
            os.close(descriptor)

    def reconfigure(self, device: str, sockets: Sequence[socket.socket], disk: Disk) -> None:
        raise UnsupportedError(
            f"{device} is attached by ioctl, and its connections cannot be replaced",
            cure="use a kernel with NBD over netlink (Linux >= 4.12), or umount and mount again",
        )

    def disconnect(self, device: str) -> None:
        node = f"/dev/nbd{index_of(device)}"
        try:
            descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"open {node}: {error.strerror}") from None
        try:
            self._ioctl(descriptor, DISCONNECT, 0)
        except OSError as error:
            raise MountError(f"detach {node}: {error.strerror}") from None
        finally:
            os.close(descriptor)
        thread = self._threads.pop(node, None)
        if thread is not None:
            thread.join(_READY)

    def connected(self, device: str) -> bool:
        return is_attached(index_of(device), sysfs=self._sysfs)

    def _free(self) -> int:
        names = (name for name in os.listdir(self._sysfs) if name[:3] == "nbd" and name[3:].isdecimal())
        for index in sorted(int(name[3:]) for name in names):
            if not is_attached(index, sysfs=self._sysfs):
                return index
        raise BusyError("all network block devices are attached", cure="as root: modprobe nbd nbds_max=64")
