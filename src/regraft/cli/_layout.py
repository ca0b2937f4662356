# SPDX-License-Identifier: Apache-2.0
"""Telling what `--layout auto` found."""

from __future__ import annotations

from regraft.build.chunks import layout_of
from regraft.cli._output import say
from regraft.engine.medium import Medium
from regraft.formats.chunk_rules import Placement


def say_layout(image: Medium, placement: Placement) -> None:
    """Say which file system the image holds and in how many places it is cut, or why in none."""
    if not placement.files:
        return
    found = layout_of(image)
    if found.cuts:
        say(f"layout: {found.kind}, {len(found.cuts)} places where files begin or end")
    else:
        say(f"layout: {found.note or f'no file of this {found.kind} has a place of its own'}; cut by content alone")
    if found.cuts and found.note:
        say(f"layout: {found.note}")
