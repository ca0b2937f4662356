# SPDX-License-Identifier: Apache-2.0
"""`regraft mount`, `umount`, `status`: what they refuse, and how. What they do is shown to real kernels elsewhere."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from commands import regraft

from regraft.blockdev import attachment, daemon, records
from regraft.blockdev.records import Record
from regraft.errors import BusyError, RegraftError


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "disk.img").write_bytes(b"x" * 8192)
    return str(tmp_path / "disk.img")


def test_words_that_do_not_belong_together(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (
        [],
        [image],
        [image, "auto", "more"],
        [image, "auto", "--fuse", "/run/x"],
        ["--take-over", "/dev/nbd0", "--fuse", "/run/x"],
        [image, "auto", "--root-hash", "00"],
        [image, "auto", "--name", "x"],
        [image, "--fuse", "/run/x", "--verity"],
        [image, "/dev/nbd0", "--take-over", "--verity"],
        [image, "--fuse", "/run/x", "-C", "2"],
        [image, "--fuse", "/run/x", "--dead-timeout", "9"],
        ["--take-over", "/dev/nbd0", "-t", "30"],
        [image, "auto", "--verity", "--hash-offset", "4096", "--tree", image],
        [image, "auto", "--connections", "0"],
        [image, "auto", "--connections", "17"],
        [image, "auto", "--timeout", "-1"],
    ):
        assert regraft("mount", *options) == 2, options
    capsys.readouterr()


def test_a_device_of_another_kind_is_refused(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = regraft("mount", image, "/dev/sda", "--foreground")
    assert status in (2, 70)  # 70: there is no NBD in this kernel to begin with
    assert capsys.readouterr().err


def test_without_network_block_devices(
    image: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attachment, "SYSFS", str(tmp_path))
    if os.path.exists("/sys/module/nbd"):
        pytest.skip("this kernel has them")
    for how in ([], ["--foreground"]):  # by the daemon's report, and directly
        assert regraft("mount", image, "auto", *how) == 70
        err = capsys.readouterr().err
        assert "modprobe nbd" in err
        assert "--fuse" in err


def test_what_is_no_mount(capsys: pytest.CaptureFixture[str]) -> None:
    assert regraft("umount", "/dev/nbd77") == 70
    assert regraft("mount", "--take-over", "/dev/nbd77", "--foreground") == 70
    assert "regraft status" in capsys.readouterr().err


def test_the_status_of_a_mount_tells_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    records.write(Record("fuse", "/run/x.img", "https://user:hidden@host/rootfs.cba?token=hidden", 4096, 77))
    for options in ([], ["--json"]):
        assert regraft("status", *options) == 0
        said = capsys.readouterr().out
        assert "https://host/rootfs.cba" in said
        assert "hidden" not in said


def test_the_status_of_a_mount_whose_daemon_died(state_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write(Record("fuse", "/run/x.img", "/images/a", 5000, 77))
    records.write(Record("nbd", "/dev/nbd999999", "/images/b", 8192, 78, mapper="checked", root_hash="00"))
    assert regraft("status", "--json") == 0
    found = {each["target"]: each for each in json.loads(capsys.readouterr().out)["mounts"]}
    assert found["/run/x.img"]["state"] == "dead"
    assert found["/dev/nbd999999"]["state"] == "gone"
    assert found["/dev/nbd999999"]["verity"] == {"device": "/dev/mapper/checked", "root_hash": "00"}
    assert regraft("status", "/run/x.img") == 0
    assert capsys.readouterr().out == "/run/x.img: dead, /images/a, 5.0 kB, no process\n"


def test_what_a_dead_daemon_left_is_cleared(state_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write(Record("nbd", "/dev/nbd999999", "/images/b", 8192, 78, mapper="checked"))
    assert regraft("umount", "/dev/mapper/checked") == 0
    assert records.every() == []


def test_a_verity_mount_needs_a_tree(image: str, tmp_path: Path) -> None:
    from regraft.blockdev.export import FileExport
    from regraft.cli._network import Network
    from regraft.cli._verity import hash_tree, with_tree

    export = FileExport(image)
    entries = hash_tree(image, "-")
    tree = tmp_path / "tree"
    tree.write_bytes(entries["verity.tree"])
    root = entries["verity.root"].decode()

    def opened(**options: object) -> int:
        settings = {"root": root, "offset": 0, "tree": str(tree)} | options
        with with_tree(image, export, network=Network(), **settings) as (whole, found):  # type: ignore[arg-type]
            assert found.hash_offset == 8192
            return whole.size

    assert opened() == 8192 + 8192
    for options, status in (
        ({"tree": ""}, 70),
        ({"root": ""}, 2),
        ({"root": "xyz"}, 2),
        ({"root": "00"}, 2),
        ({"root": "00" * 32}, 22),
        ({"offset": 4095}, 2),
        ({"offset": 8192}, 2),
        ({"offset": 4096}, 10),
    ):
        with pytest.raises(RegraftError) as failed:
            opened(**options)
        assert failed.value.exit_status == status, options
    export.close()


def test_work_in_the_background_reports_and_fails_by_its_own_words(tmp_path: Path) -> None:
    def work(ready: daemon.Callable[..., None]) -> None:
        ready({"pid": os.getpid(), "session": os.getsid(0)})
        (tmp_path / "after").write_text("done")

    found = daemon.in_background(work)
    assert found["pid"] == found["session"] != os.getpid()
    os.waitpid(found["pid"], 0)
    assert (tmp_path / "after").read_text() == "done"

    def refuse(_: object) -> None:
        raise BusyError("it is used", cure="wait")

    def fail(_: object) -> None:
        raise ValueError("a fault")

    def vanish(_: object) -> None:
        os._exit(3)

    with pytest.raises(BusyError, match="it is used") as refused:
        daemon.in_background(refuse)
    assert refused.value.cure == "wait"
    with pytest.raises(RegraftError, match="a fault"):
        daemon.in_background(fail)
    with pytest.raises(RegraftError, match="without a word"):
        daemon.in_background(vanish)


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind("\0regraft-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@regraft-test-notify")
        daemon.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    for address in ("", "relative", "/nowhere/at/all"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        daemon.notify("READY=1")  # nothing happens
