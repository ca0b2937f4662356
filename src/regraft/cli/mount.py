# SPDX-License-Identifier: Apache-2.0
"""`regraft mount`: an image as a block device of the kernel, or as a file."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from regraft.cli._network import Network, network_options
from regraft.cli._options import examples, is_given, json_option, seed_option
from regraft.cli._output import emit_json, say
from regraft.errors import BusyError, MissingError, StateError, UsageError
from regraft.limits import DEFAULT

if TYPE_CHECKING:
    from regraft.blockdev.export import Export
    from regraft.blockdev.mounts import Faults, Mount, NbdMount
    from regraft.blockdev.records import Record
    from regraft.formats.verity import Verity

Ready = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for. device: a path or "auto", file: of --fuse; one of them is empty."""

    what: str
    device: str
    file: str
    connections: int
    timeout: int
    dead_timeout: int
    verity: bool
    root_hash: str
    hash_offset: int
    tree: str
    name: str
    take_over: bool
    lock: bool
    initrd: bool
    network: Network
    seeds: tuple[str, ...] = ()
    keep: str = ""


@click.command(
    epilog=examples(
        "regraft mount rootfs.squashfs auto                          prints /dev/nbd0, say",
        "regraft mount rootfs.squashfs /dev/nbd3 --connections 4     also after the daemon died: goes on with it",
        "regraft mount rootfs.cba auto --verity --root-hash HEX      prints /dev/mapper/regraft-nbd0",
        "regraft mount images/v2 auto                                an image of the chunk store `images`",
        "regraft mount https://host/rootfs.cba /dev/nbd1 --keep images/v3    before it is downloaded",
        "regraft mount --take-over /dev/nbd3                         a new daemon, as after an update of regraft",
        "regraft mount rootfs.ext4 --fuse /run/rootfs.img            then: mount -o loop,ro /run/rootfs.img /mnt",
    )
)
@click.argument("words", metavar="[WHAT] [DEV|auto]", nargs=-1)
@seed_option
@click.option(
    "--keep",
    default="",
    metavar="FILE|STORE/NAME",
    help="Of an artifact: keep what was fetched; the file becomes the image, or the chunk store gets it.",
)
@click.option("--fuse", "file", metavar="FILE", help="Instead of a device: make FILE have the image's content.")
@network_options
@click.option(
    "-C",
    "--connections",
    type=click.IntRange(1, DEFAULT.mount_connections),
    default=2,
    show_default=True,
    help="Sockets between kernel and daemon; each is served by a thread.",
)
@click.option(
    "-t",
    "--timeout",
    type=click.IntRange(0, 3600),
    default=30,
    show_default=True,
    help="Seconds until the kernel sends a request again over another socket; 0: never.",
)
@click.option(
    "--dead-timeout",
    type=click.IntRange(0, 10_000_000),
    default=86_400,
    show_default=True,
    help="Seconds that readers wait for a new daemon when this one has died; then they get errors.",
)
@click.option("--verity", is_flag=True, help="Set up dm-verity above the device: what was changed reads as an error.")
@click.option("--root-hash", default="", metavar="HEX", help="For --verity; default: what the artifact says.")
@click.option("--hash-offset", type=click.IntRange(0), default=0, help="For --verity: the tree is in WHAT, here.")
@click.option("--tree", default="", metavar="FILE", help="For --verity: the tree is in FILE.")
@click.option("--name", default="", metavar="NAME", help="Of the verified device, in /dev/mapper.")
@click.option("--take-over", is_flag=True, help="Go on where the daemon of DEV stops; WHAT is then what it had.")
@click.option("--foreground", is_flag=True, help="Stay, and tell systemd when ready (Type=notify).")
@click.option("--mlock", "lock", is_flag=True, help="Keep the daemon's memory out of swap, and its code in memory.")
@click.option("--initrd", is_flag=True, help="Be spared by systemd at the change of root, as a root storage daemon.")
@json_option
def command(
    words: tuple[str, ...], file: str | None, connections: int, timeout: int, dead_timeout: int, verity: bool,
    root_hash: str, hash_offset: int, tree: str, name: str, take_over: bool, foreground: bool, lock: bool,
    initrd: bool, seeds: tuple[str, ...], keep: str, network: Network, as_json: bool,
) -> None:  # fmt: skip
    """Make WHAT a read-only disk of the kernel: DEV (/dev/nbd0 and so on), or with `auto` a free one. WHAT is an image
    (a file, a block device, or STORE/NAME in a chunk store) or a chunked artifact. Prints the device once it is ready;
    a daemon in the background serves it.

    Blocks have 4 KiB: behind the end of an image whose size is no multiple, zeros fill the last block. If the daemon
    dies, readers wait; the same command again goes on with a new one, and no reader notices more than the wait.
    SIGTERM ends a daemon whose device nobody uses; otherwise it goes on: unmount first, then `regraft umount`.
    """
    what, device = _places(words, file, take_over)
    if (root_hash or hash_offset or tree or name) and not verity:
        raise UsageError("--root-hash, --hash-offset, --tree and --name belong to --verity")
    if verity and (file or take_over):
        raise UsageError("--verity is for a new device: not with --fuse, and --take-over keeps what there is")
    if hash_offset and tree:
        raise UsageError("--hash-offset and --tree exclude each other")
    if (file or take_over) and any(map(is_given, ("connections", "timeout", "dead_timeout"))):
        raise UsageError(
            "--connections, --timeout and --dead-timeout are of a new device, not of --fuse or --take-over"
        )
    job = Job(
        _absolute(what), device, os.path.abspath(file) if file else "", connections, timeout, dead_timeout, verity,
        root_hash, hash_offset, os.path.abspath(tree) if tree else "", name, take_over, lock, initrd, network,
        tuple(map(os.path.abspath, seeds)), os.path.abspath(keep) if keep else "",
    )  # fmt: skip

    def announce(fields: dict[str, Any]) -> None:
        if as_json:
            emit_json("mount", fields)
        else:
            sys.stdout.write(f"{fields['device']}\n")
        sys.stdout.flush()

    if foreground:
        _run(job, announce, say)
        return
    from regraft.blockdev.daemon import in_background

    announce(in_background(lambda ready: _run(job, ready, lambda _: None)))


def _places(words: tuple[str, ...], file: str | None, take_over: bool) -> tuple[str, str]:
    """WHAT and DEV."""
    if file is not None and take_over:
        raise UsageError("--fuse and --take-over exclude each other")
    if file is not None and len(words) == 1:
        return words[0], ""
    if take_over and len(words) == 1:
        return "", words[0]
    if file is None and len(words) == 2:
        return words[0], words[1]
    raise UsageError("give WHAT and DEV; WHAT alone with --fuse, DEV alone with --take-over")


def _absolute(what: str) -> str:
    return what if not what or "://" in what else os.path.abspath(what)


def _run(job: Job, ready: Ready, echo: Callable[[str], None]) -> None:
    """Begin, say so, and serve until the end."""
    from regraft.blockdev import records
    from regraft.blockdev.daemon import Control, harden, serve
    from regraft.blockdev.mounts import Faults

    faults, wake = Faults(echo), threading.Event()
    with ExitStack() as stack:
        mount, device, fresh = (_file if job.file else _disk)(job, faults, stack)
        with _undone(mount if fresh else None):
            records.write(mount.record)
            control = Control(mount, wake, faults)
        harden(lock=job.lock, initrd=job.initrd)
        fields = {"device": device, "target": mount.record.target, "size": mount.record.size, "pid": os.getpid()}
        ready({**fields, "root_hash": mount.record.root_hash or None})
        serve(mount, control, wake, faults)


@contextmanager
def _undone(mount: Mount | None) -> Iterator[None]:
    """If the block fails, detach what is new. What had readers before us stays: they wait for the next daemon."""
    try:
        yield
    except BaseException:
        if mount is not None:
            mount.detach(force=True)
        raise


def _open(job: Job, faults: Faults) -> AbstractContextManager[Export]:
    """What is to be mounted. A read that waits for a server fails well before the kernel asks again elsewhere."""
    from regraft.cli._export import open_export

    deadline = min(DEFAULT.view_deadline, job.timeout / 3) if job.timeout else DEFAULT.view_deadline
    limits = replace(DEFAULT, view_deadline=deadline)
    return open_export(
        job.what, network=job.network, seeds=job.seeds, keep=job.keep or None, report=faults.report, limits=limits
    )


def _file(job: Job, faults: Faults, stack: ExitStack) -> tuple[Mount, str, bool]:
    from regraft.blockdev.fuse.mount import mount_file
    from regraft.blockdev.mounts import FuseMount
    from regraft.blockdev.records import Record

    image = stack.enter_context(_open(job, faults))
    file = mount_file(image, job.file, report=faults.report)
    record = Record("fuse", file.path, job.what, image.size, os.getpid(), connections=DEFAULT.fuse_threads)
    mount = FuseMount(file, record, faults)
    stack.callback(mount.close)
    return mount, file.path, True


def _disk(job: Job, faults: Faults, stack: ExitStack) -> tuple[Mount, str, bool]:
    """The disk, the device to be used, and whether it is new: its daemon may have died, or make room."""
    from regraft.blockdev import records
    from regraft.blockdev.attachment import choose, index_of, is_attached
    from regraft.blockdev.mounts import NbdMount, verified_size
    from regraft.blockdev.views import joined

    old = records.load(job.device) if job.device != "auto" else None
    if job.take_over:
        if old is None:
            raise MissingError(f"{job.device} is no mount of regraft", cure="`regraft status` lists those there are")
        job = _as_before(job, old)
    attachment = choose()
    attached = job.device != "auto" and is_attached(index_of(job.device))
    image = stack.enter_context(_open(job, faults))
    verity: Verity | None = None
    if job.verity:
        image, verity = stack.enter_context(_verified(job, image))
    whole = joined([image], name="disk")
    record = records.Record(
        kind="nbd", target=_device(job.device), what=job.what, size=whole.size, pid=os.getpid(),
        identifier=_identifier(job, image, verity), connections=job.connections, timeout=job.timeout,
        dead_timeout=job.dead_timeout, name=job.name,
        root_hash=verity.root.hex() if verity else "", hash_offset=job.hash_offset, tree=job.tree, keep=job.keep,
    )  # fmt: skip
    if attached and old is not None and old.mapper and verified_size(old.mapper):
        record = replace(record, mapper=old.mapper, root_hash=old.root_hash)
    mount = NbdMount(whole, attachment, record, faults)
    stack.callback(mount.close)
    if job.take_over:
        _take_over(mount, record, old)
    elif attached:
        if (answer := records.ask(record.stem, "status")) is not None:
            pid = old.pid if old is not None and answer else 0
            raise BusyError(f"{job.device} is served by process {pid}", cure="regraft umount, or --take-over")
        mount.reattach()
    else:
        mount.attach()
    if verity is None or mount.record.mapper:
        mapper = mount.record.mapper
        return mount, f"/dev/mapper/{mapper}" if mapper else mount.record.target, not attached
    with _undone(None if attached else mount):
        name = job.name or f"regraft-{os.path.basename(mount.record.target)}"
        return mount, mount.verify(verity, name), not attached


def _as_before(job: Job, old: Record) -> Job:
    return replace(
        job, what=job.what or old.what, connections=old.connections, timeout=old.timeout,
        dead_timeout=old.dead_timeout, verity=bool(old.root_hash), root_hash=old.root_hash,
        hash_offset=old.hash_offset, tree=old.tree, name=old.name, keep=job.keep or old.keep,
    )  # fmt: skip


def _verified(job: Job, image: Export) -> Any:
    from regraft.cli._verity import with_tree

    return with_tree(job.what, image, root=job.root_hash, offset=job.hash_offset, tree=job.tree, network=job.network)


def _device(device: str) -> str:
    from regraft.blockdev.attachment import index_of

    return device if device == "auto" else f"/dev/nbd{index_of(device)}"


def _identifier(job: Job, image: Export, verity: Verity | None) -> str:
    """What the kernel compares when a new daemon comes: the same only for the same image."""
    import hashlib

    hasher = hashlib.sha256(f"regraft disk {image.size} ".encode())
    if verity is not None:
        hasher.update(verity.root + verity.salt + f" {verity.hash_offset}".encode())
        return f"regraft-{hasher.hexdigest()[:40]}"
    if identity := getattr(image, "identity", b""):
        hasher.update(identity)
        return f"regraft-{hasher.hexdigest()[:40]}"
    hasher.update(os.fsencode(job.what) + b"\0")
    try:
        found = os.stat(job.what)
        hasher.update(f"{found.st_dev} {found.st_ino} {found.st_mtime_ns}".encode())
    except OSError:
        pass  # not a file of its own
    head = bytearray(min(image.size, 65_536))
    image.read_into(0, memoryview(head))
    hasher.update(head)
    return f"regraft-{hasher.hexdigest()[:40]}"


def _take_over(mount: NbdMount, record: Record, old: Record | None) -> None:
    from regraft.blockdev import records
    from regraft.blockdev.daemon import as_error

    if old is None or old.identifier != record.identifier:
        raise StateError(f"{record.what} is not what {record.target} has", cure="give the image that it has")
    line = records.connect(record.stem)
    if line is None:
        raise StateError(
            f"the daemon of {record.target} does not live", cure=f"regraft mount {record.what} {record.target}"
        )
    with line:
        try:
            records.say(line, {"ask": "hand-over"})
            if refused := records.peek(line).get("error"):
                raise as_error(refused)
        except OSError as error:
            raise StateError(f"the daemon of {record.target} does not answer: {error}", cure="try again") from None
        mount.take_over(line)
