# SPDX-License-Identifier: Apache-2.0
"""What the verbs of `regraft overlay` share: finding an overlay, and telling its daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.errors import MissingError, StateError

if TYPE_CHECKING:
    from regraft.blockdev.records import Record


def find(name: str) -> Record:
    """The record of an overlay, by its name or device. Raises MissingError."""
    from regraft.blockdev import records
    from regraft.blockdev.device_mapper import FOLDER, is_name
    from regraft.blockdev.overlay import target_of

    name = name.removeprefix(f"{FOLDER}/")
    record = records.load(target_of(name)) if is_name(name) else None
    if record is None:
        raise MissingError(f"there is no overlay {name}", cure="`regraft overlay status` lists those there are")
    return record


def tell(record: Record, what: str) -> bool:
    """Have the daemon do something; False if there is none. Raises what it raised."""
    from regraft.blockdev import records
    from regraft.blockdev.daemon import as_error

    answer = records.ask(record.stem, what)
    if answer is not None and "error" in answer:
        raise as_error(answer["error"])
    return answer is not None


def no_daemon(record: Record) -> StateError:
    """What to say where one is needed."""
    return StateError(
        f"{record.target} has no daemon", cure="create the overlay again, with what it was created with: it goes on"
    )
