# SPDX-License-Identifier: Apache-2.0
"""SWUpdate's handlers, one small class each, found by the `type` of an entry in sw-description."""

from __future__ import annotations

from regraft.errors import MissingError
from regraft.swupdate.description import Entry
from regraft.swupdate.handlers.base import Context, Forecast, Handler, Report, Sink
from regraft.swupdate.handlers.delta import Delta
from regraft.swupdate.handlers.raw import Raw
from regraft.swupdate.handlers.rawfile import RawFile

REGISTRY: dict[str, type[Handler]] = {"raw": Raw, "rawfile": RawFile, "delta": Delta}


def handler_for(entry: Entry, context: Context) -> Handler:
    """The handler of an entry, for partitions, images, files and scripts alike. Raises MissingError."""
    kind = REGISTRY.get(entry.type)
    if kind is None or entry.kind not in ("images", "files"):
        known = ", ".join(sorted(REGISTRY))
        raise MissingError(
            f"{entry.where or entry.filename}: regraft has no handler {entry.type!r} for {entry.kind}",
            cure=f"handlers for images and files are: {known}; install this bundle with swupdate",
        )
    return kind(entry, context)


__all__ = ["REGISTRY", "Context", "Forecast", "Handler", "Report", "Sink", "handler_for"]
