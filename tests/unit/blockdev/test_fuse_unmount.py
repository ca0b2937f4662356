# SPDX-License-Identifier: Apache-2.0
"""A FUSE file that somebody keeps, though it is unmounted here."""

from __future__ import annotations

import threading

import pytest
from nbd_talk import PatternExport

from regraft.blockdev import mounting
from regraft.blockdev.fuse.mount import FuseFile
from regraft.blockdev.fuse.protocol import OneFile, Owner
from regraft.errors import BusyError


class Held(FuseFile):
    """Its device does not end before it is let go."""

    def __init__(self, path: str) -> None:
        file = OneFile(PatternExport(), owner=Owner(0, 0), report=print)
        super().__init__(-1, path, False, file, print)
        self.let_go = threading.Event()

    def _serve(self) -> None:
        self.let_go.wait(20)


def test_a_mount_that_lives_on_in_another_namespace_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(mounting, "unmount", lambda path, flags: calls.append(path))
    file = Held("/run/x.img")
    file.start(2)
    for _ in range(2):  # asked again it says the same: it is unmounted once
        with pytest.raises(BusyError, match="mount namespace"):
            file.unmount(timeout=0.05)
    assert file.alive
    file.let_go.set()
    file.unmount()
    assert not file.alive
    assert calls == ["/run/x.img"]
