# SPDX-License-Identifier: Apache-2.0
"""`regraft mount` in a device: the kernel's NBD client attached by us, its daemon killed, replaced and asked to end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import regraft
from lab import Guest
from trees import FILE_SYSTEMS, Images, make_images

from regraft.formats import verity

FOLDER = "/run/mounted-images"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return make_images(tmp_path_factory.mktemp("images"))


def put(guest: Guest, content: Path | bytes, name: str) -> str:
    return guest.put(content, f"{FOLDER}/{name}")


def mount(guest: Guest, *arguments: str, status: int = 0) -> dict[str, Any]:
    done = guest.run("regraft", "mount", *arguments, "--json")
    assert done.status == status, done.err
    found: dict[str, Any] = json.loads(done.out) if not status else {"cause": done.err}
    return found


@contextmanager
def mounted(guest: Guest, *arguments: str) -> Iterator[dict[str, Any]]:
    found = mount(guest, *arguments)
    try:
        yield found
    finally:
        done = guest.run("regraft", "umount", found["target"])
        assert done.status == 0, done.err
        guest.call(wait_for_end, found["target"])


def wait_for_end(device: str) -> None:
    """Its daemons have gone: nothing else of ours runs."""
    import os

    from lab import inside

    def gone() -> bool:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    if "mount\0" in file.read() and int(pid) != os.getpid():
                        return False
            except OSError:
                pass
        return not os.path.exists(f"/sys/block/{os.path.basename(device)}/pid")

    inside.until(gone, "the end of the daemon")


def status(guest: Guest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(guest.run("regraft", "status", "--json").out)["mounts"]
    return found


def read_tree(device: str, kind: str) -> dict[str, str]:
    from lab import inside

    with inside.mounted(device, "/mnt/image", kind):
        return inside.digests("/mnt/image")


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_every_file_is_as_it_was(guest: Guest, images: Images, kind: str) -> None:
    path = put(guest, images.images[kind], kind)
    with mounted(guest, path, "auto", "--connections", "3") as found:
        assert guest.call(read_tree, found["device"], kind) == images.files
        (state,) = status(guest)
        assert (state["state"], state["pid"], state["errors"]) == ("serving", found["pid"], 0)
        assert state["live_connections"] == 3
    assert status(guest) == []


def test_what_the_kernel_was_told(guest: Guest) -> None:
    def look(name: str) -> dict[str, str]:
        import os

        found = {}
        for key in ("size", "ro", "queue/logical_block_size", "queue/max_sectors_kb", "backend"):
            with open(f"/sys/block/{name}/{key}") as file:
                found[os.path.basename(key)] = file.read().strip()
        return found

    def bytes_of(device: str) -> str:
        with open(device, "rb") as file:
            return file.read().hex()

    path = put(guest, b"\1" * 10_000, "odd")
    with mounted(guest, path, "/dev/nbd5") as found:
        assert found["device"] == "/dev/nbd5"
        told = guest.call(look, "nbd5")
        assert told.pop("backend").startswith("regraft-")
        assert told == {"size": "24", "ro": "1", "logical_block_size": "4096", "max_sectors_kb": "1024"}
        assert bytes.fromhex(guest.call(bytes_of, "/dev/nbd5")) == b"\1" * 10_000 + bytes(2288)


def read_meanwhile(device: str, kind: str, flag: str) -> dict[str, str]:
    """Mount, say so, and read all files again and again until told to stop; every read must succeed."""
    import os

    from lab import inside

    with inside.mounted(device, "/mnt/meanwhile", kind):
        first = inside.digests("/mnt/meanwhile", forget=True)
        rounds = 0
        while not os.path.exists(flag + ".stop"):
            assert inside.digests("/mnt/meanwhile", forget=True) == first
            rounds += 1
            with open(flag, "w") as file:
                file.write(str(rounds))
    return first


@contextmanager
def reading(guest: Guest, device: str, kind: str, files: dict[str, str]) -> Iterator[None]:
    """All the time the file system is read, without an error, and it is read after what the block does."""

    def rounds(flag: str, more: int) -> int:

        from lab import inside

        def count() -> int:
            try:
                with open(flag) as file:
                    return int(file.read() or 0)
            except FileNotFoundError:
                return 0

        start = count()
        inside.until(lambda: count() >= start + more, "reads to go on", 60)
        return count()

    def stop(flag: str) -> None:
        with open(flag + ".stop", "w"):
            pass

    flag = f"/run/reading-{kind}"
    guest.run("rm", "-f", flag, f"{flag}.stop")
    job = guest.start(read_meanwhile, device, kind, flag)
    guest.call(rounds, flag, 1)
    try:
        yield
        guest.call(rounds, flag, 2)
    finally:
        guest.call(stop, flag)
    done = job.wait()
    assert done.status == 0, done.err
    assert done.value == files


def test_a_daemon_that_is_killed_is_replaced_under_a_reader(guest: Guest, images: Images) -> None:
    path = put(guest, images.images["ext4"], "ext4")
    options = [path, "/dev/nbd2", "--connections", "2", "--timeout", "3"]
    first = mount(guest, *options)
    with reading(guest, "/dev/nbd2", "ext4", images.files):
        guest.run("kill", "-9", str(first["pid"]))
        guest.run("sleep", "1")
        (state,) = status(guest)
        assert state["state"] == "dead"
        second = mount(guest, *options)
        assert second["pid"] != first["pid"]
    (state,) = status(guest)
    assert (state["state"], state["pid"], state["live_connections"]) == ("serving", second["pid"], 2)
    assert guest.run("regraft", "umount", "/dev/nbd2").status == 0
    guest.call(wait_for_end, "/dev/nbd2")


def test_another_image_does_not_take_the_place_of_a_dead_daemon(guest: Guest, images: Images) -> None:
    path = put(guest, images.images["erofs"], "erofs")
    other = put(guest, bytes(images.images["erofs"].stat().st_size), "other")
    first = mount(guest, path, "/dev/nbd2")
    assert "is served by process" in mount(guest, path, "/dev/nbd2", status=61)["cause"]
    guest.run("kill", "-9", str(first["pid"]))
    assert "another image" in mount(guest, other, "/dev/nbd2", status=61)["cause"]
    # What a dead daemon has left can be taken away without one.
    assert guest.run("regraft", "umount", "/dev/nbd2").status == 0
    assert status(guest) == []


def test_a_planned_hand_over_is_not_noticed(guest: Guest, images: Images) -> None:
    path = put(guest, images.images["squashfs"], "squashfs")
    first = mount(guest, path, "/dev/nbd1", "--connections", "2")
    with reading(guest, "/dev/nbd1", "squashfs", images.files):
        second = mount(guest, "--take-over", "/dev/nbd1")
        assert second["pid"] != first["pid"]
    (state,) = status(guest)
    assert (state["state"], state["pid"], state["errors"]) == ("serving", second["pid"], 0)
    assert guest.run("regraft", "umount", "/dev/nbd1").status == 0
    guest.call(wait_for_end, "/dev/nbd1")


def test_a_mounted_device_is_not_taken_away(guest: Guest, images: Images) -> None:
    def hold(device: str, pid: int) -> list[Any]:
        import os
        import signal
        import subprocess
        import time

        from lab import inside

        with inside.mounted(device, "/mnt/held", "ext4"):
            refused = subprocess.run(["regraft", "umount", device], capture_output=True, text=True)
            os.kill(pid, signal.SIGTERM)
            time.sleep(1.5)
            inside.forget()
            return [refused.returncode, refused.stderr, len(inside.digests("/mnt/held"))]

    path = put(guest, images.images["ext4"], "ext4")
    found = mount(guest, path, "auto")
    code, words, count = guest.call(hold, found["device"], found["pid"])
    assert code == 61
    assert "mounted" in words
    assert count == len(images.files)
    assert "goes on" in status(guest)[0]["last_errors"][0]["what"]
    guest.run("kill", str(found["pid"]))  # now nobody uses it
    guest.call(wait_for_end, found["target"])
    assert status(guest) == []


def test_a_device_that_others_detach_ends_its_daemon(guest: Guest, images: Images) -> None:
    path = put(guest, images.images["erofs"], "erofs")
    found = mount(guest, path, "auto")
    guest.run("nbd-client", "-d", found["device"])
    guest.call(wait_for_end, found["device"])
    assert status(guest) == []


def test_lost_connections_are_replaced(guest: Guest, images: Images) -> None:
    """A daemon that is stopped for longer than the time of a request loses its connections."""

    def read(device: str, pid: int) -> list[Any]:
        import hashlib
        import os
        import signal
        import threading

        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(5, os.kill, (pid, signal.SIGCONT))
        timer.start()
        with open(device, "rb") as file:
            return [hashlib.file_digest(file, "sha256").hexdigest()]

    import hashlib

    path = put(guest, images.images["squashfs"], "squashfs")
    with mounted(guest, path, "auto", "--timeout", "2", "--connections", "2") as found:
        content = images.images["squashfs"].read_bytes()
        content += bytes(-len(content) % 4096)
        assert guest.call(read, found["device"], found["pid"]) == [hashlib.sha256(content).hexdigest()]
        assert status(guest)[0]["live_connections"] == 2


def test_verity_lets_no_changed_byte_through(guest: Guest, images: Images) -> None:
    def failing(device: str) -> list[int]:
        from lab import inside

        return inside.failing_blocks(device)

    content = bytearray(images.images["erofs"].read_bytes())
    tree = verity.build(
        lambda at, view: view.__setitem__(slice(None), content[at : at + len(view)]), len(content), b"x"
    )
    options = ["--verity", "--root-hash", tree[0].root.hex(), "--tree", put(guest, tree[1], "tree")]
    with mounted(guest, put(guest, bytes(content), "good"), "auto", *options) as found:
        assert found["device"].startswith("/dev/mapper/regraft-nbd")
        assert guest.call(read_tree, found["device"], "erofs") == images.files
        assert status(guest)[0]["verity"]["root_hash"] == tree[0].root.hex()
    content[4096 * 20 + 17] ^= 1
    with mounted(guest, put(guest, bytes(content), "bad"), "auto", *options, "--name", "checked") as found:
        assert found["device"] == "/dev/mapper/checked"
        assert guest.call(failing, found["device"]) == [20]
    wrong = [*options[:2], "00" * 32, *options[3:]]
    assert "differs from its digest" in mount(guest, f"{FOLDER}/good", "auto", *wrong, status=22)["cause"]
    assert status(guest) == []


def test_an_archive_brings_its_tree(guest: Guest, images: Images, tmp_path: Path) -> None:
    archive = tmp_path / "squashfs.cba"
    assert regraft("pack", "cba", images.images["squashfs"], "-o", archive, "--verity", "--compression", "zstd") == 0
    path = put(guest, archive, "squashfs.cba")
    with mounted(guest, path, "auto", "--verity") as found:
        assert found["device"].startswith("/dev/mapper/")
        assert guest.call(read_tree, found["device"], "squashfs") == images.files
        assert found["root_hash"] == status(guest)[0]["verity"]["root_hash"]
    refused = mount(guest, path, "auto", "--verity", "--root-hash", "11" * 32, status=22)
    assert "its hash tree has the root" in refused["cause"]


def test_verity_outlives_a_new_daemon(guest: Guest, images: Images) -> None:
    content = images.images["ext4"].read_bytes()
    tree = verity.build(lambda at, view: view.__setitem__(slice(None), content[at : at + len(view)]), len(content), b"")
    path = put(guest, content + tree[1], "with-tree")
    options = ["--verity", "--root-hash", tree[0].root.hex(), "--hash-offset", str(len(content)), "--timeout", "3"]
    first = mount(guest, path, "/dev/nbd4", *options)
    with reading(guest, first["device"], "ext4", images.files):
        second = mount(guest, "--take-over", "/dev/nbd4")
        assert second["device"] == first["device"]
        guest.run("kill", "-9", str(second["pid"]))
        third = mount(guest, path, "/dev/nbd4", *options)
        assert third["device"] == first["device"]
    assert guest.run("regraft", "umount", first["device"]).status == 0
    guest.call(wait_for_end, "/dev/nbd4")


def test_the_old_way_by_ioctl(guest: Guest, images: Images) -> None:
    def serve(path: str) -> list[Any]:
        import hashlib

        from regraft.blockdev.attachment import Disk, is_attached, socket_pairs
        from regraft.blockdev.export import FileExport
        from regraft.blockdev.nbd.exports import Session
        from regraft.blockdev.nbd.server import Server
        from regraft.blockdev.nbd_ioctl import IoctlAttachment
        from regraft.blockdev.views import joined

        export = joined([FileExport(path)])
        server = Server([export])
        ours, theirs = socket_pairs(2)
        for client in ours:
            server.adopt(client, Session(export))
        attachment = IoctlAttachment()
        device = attachment.attach("auto", theirs, Disk(export.size, timeout=10))
        for each in theirs:
            each.close()
        with open(device, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        attachment.disconnect(device)
        server.stop()
        return [digest, export.size, is_attached(int(device.removeprefix("/dev/nbd")))]

    import hashlib

    content = images.images["squashfs"].read_bytes()
    content += bytes(-len(content) % 4096)
    path = put(guest, images.images["squashfs"], "squashfs")
    assert guest.call(serve, path) == [hashlib.sha256(content).hexdigest(), len(content), False]


def test_linear_tables_are_swapped_under_a_mounted_file_system(guest: Guest, images: Images) -> None:
    def swap(path: str) -> list[Any]:
        import os

        from lab import inside

        from regraft.blockdev import loop
        from regraft.blockdev.device_mapper import DeviceMapper, linear
        from regraft.errors import BusyError

        first, held = loop.attach(path)
        second, also = loop.attach(path)
        sectors = os.path.getsize(path) // 512
        with DeviceMapper() as mapper:
            device = mapper.create("swapped", [linear(0, sectors, first, 0)], read_only=True)
            with inside.mounted(device, "/mnt/swapped", "ext4"):
                before = inside.digests("/mnt/swapped")
                mapper.load("swapped", [linear(0, sectors, second, 0)], read_only=True)
                mapper.suspend("swapped", freeze=False)
                mapper.resume("swapped")
                try:
                    mapper.remove("swapped")
                except BusyError:
                    refused = True
                inside.forget()
                same = inside.digests("/mnt/swapped") == before
            (target,) = mapper.status("swapped", table=True).targets
            mapper.remove("swapped")
            gone = not mapper.exists("swapped") and not os.path.exists(device)
        number = os.stat(second).st_rdev
        os.close(held)
        os.close(also)
        device_number = f"{os.major(number)}:{os.minor(number)}"
        return [len(before), refused, same, target.parameters == f"{device_number} 0", target.length == sectors, gone]

    path = put(guest, images.images["ext4"], "ext4")
    assert guest.call(swap, path) == [len(images.files), True, True, True, True, True]


def test_a_file_over_fuse_needs_no_nbd(guest: Guest, images: Images) -> None:
    def read(file: str) -> dict[str, str]:
        import os

        from lab import inside

        from regraft.blockdev import loop

        device, held = loop.attach(file)
        try:
            with inside.mounted(device, "/mnt/file", "squashfs"):
                return inside.digests("/mnt/file")
        finally:
            os.close(held)

    path = put(guest, images.images["squashfs"], "squashfs")
    found = mount(guest, path, "--fuse", f"{FOLDER}/file.img")
    assert guest.call(read, found["device"]) == images.files
    assert guest.run("regraft", "umount", found["device"]).status == 0
    guest.call(wait_for_end, "fuse")


def test_in_the_foreground_for_a_service_manager(guest: Guest, images: Images) -> None:
    def supervise(path: str) -> list[Any]:
        import os
        import socket
        import subprocess

        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind("/run/notify.sock")
        notify.settimeout(20)
        child = subprocess.Popen(
            ["regraft", "mount", path, "auto", "--foreground", "--mlock", "--initrd"],
            env={**os.environ, "NOTIFY_SOCKET": "/run/notify.sock"},
            stdout=subprocess.PIPE,
            text=True,
        )
        said = notify.recv(1000).decode()
        notify.close()
        os.unlink("/run/notify.sock")
        with open(f"/proc/{child.pid}/cmdline", "rb") as file:
            mark = file.read(1).decode()
        with open(f"/proc/{child.pid}/oom_score_adj") as file:
            score = int(file.read())
        with open(f"/proc/{child.pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        child.terminate()
        out, _ = child.communicate()
        return [said, out, child.returncode, mark, score, int(fields["VmLck"].split()[0]) > 0, fields["VmHWM"]]

    said, out, code, mark, score, locked, peak = guest.call(supervise, put(guest, images.images["erofs"], "erofs"))
    assert said.startswith("READY=1\n")
    assert out.startswith("/dev/nbd")
    assert (code, mark, score, locked) == (0, "@", -1000, True)
    assert int(peak.split()[0]) < 64 << 10, peak
    guest.call(wait_for_end, out.strip())
