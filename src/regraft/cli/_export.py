# SPDX-License-Identifier: Apache-2.0
"""Opening what can be served as a disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regraft.cli._network import Network
from regraft.errors import UnsupportedError
from regraft.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from regraft.blockdev.export import Export


@contextmanager
def open_export(
    what: str,
    *,
    name: str = "",
    network: Network | None = None,
    report: Callable[[str], None] = lambda _: None,
    limits: Limits = DEFAULT,
) -> Iterator[Export]:
    """Open a flat image or block device. Raises SourceError, UnsupportedError."""
    from regraft.blockdev.export import FileExport
    from regraft.formats.zchunk import MAGIC, MAGIC_DETACHED

    export = FileExport(what, name=name)
    try:
        head = bytearray(min(len(MAGIC), export.size))
        export.read_into(0, memoryview(head))
        if bytes(head) in (MAGIC, MAGIC_DETACHED):
            raise UnsupportedError(f"{what} is a zchunk file, not an image", cure="unpack it first: regraft unpack")
        yield export
    finally:
        export.close()
