# SPDX-License-Identifier: Apache-2.0
"""`regraft swu ...`: one verb, one file."""

from __future__ import annotations

from regraft.cli._group import VerbGroup

command = VerbGroup("swu", __path__, __name__, help="Build, inspect, verify, extract and lint SWUpdate bundles.")
