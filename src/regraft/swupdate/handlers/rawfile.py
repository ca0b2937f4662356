# SPDX-License-Identifier: Apache-2.0
"""SWUpdate's handler `rawfile`: an artifact into a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from regraft.engine.files import FileDirectory, open_target
from regraft.engine.state import state_of
from regraft.errors import FormatError, MediumError, MissingError
from regraft.swupdate.handlers.base import Sink, Slot


class RawFile(Sink):
    """Writes the entry's `path`.

    Properties: `create-destination` makes the folders above it; `atomic-install` writes `path`.tmp and renames it.
    """

    @property
    def target(self) -> str:
        return self.entry.path

    def check(self) -> None:
        entry = self.entry
        if not entry.path.startswith("/") or ".." in entry.path.split("/"):
            raise FormatError(
                f"{entry.where}: handler rawfile needs an absolute path without .., here it is {entry.path!r}",
                cure="add path = ... to the entry",
            )
        if entry.device and entry.filesystem:
            raise MissingError(
                f"{entry.where}: regraft does not mount {entry.device} to write a file in it",
                cure="mount it beforehand and leave device and filesystem out of the entry",
            )
        if not self._create_destination and not os.path.isdir(os.path.dirname(entry.path)):
            raise MediumError(
                f"{os.path.dirname(entry.path)} does not exist", cure="set the property create-destination to true"
            )

    @property
    def _create_destination(self) -> bool:
        return self.entry.setting("create-destination") == "true"

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        path = self.entry.path
        if self._create_destination:
            FileDirectory(os.path.dirname(path)).close()
        if self.entry.setting("atomic-install") != "true":
            medium = open_target(path)
            try:
                yield Slot(medium, state_of(path))
            finally:
                medium.close()
            return
        folder, name = FileDirectory(os.path.dirname(path)), os.path.basename(path)
        medium = open_target(f"{path}.tmp")
        try:
            yield Slot(medium, state_of(f"{path}.tmp"))
            state = state_of(f"{path}.tmp")
            if state is not None:
                state.drop_index()  # it would describe a file that is about to go
            folder.replace(f"{name}.tmp", name)
            folder.sync_directory()
        finally:
            medium.close()
            folder.close()
