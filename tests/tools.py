# SPDX-License-Identifier: Apache-2.0
"""The real tools that tests run against: skipped where missing, unless they are required."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The path of a program."""
    # nginx, swupdate and their kin lie in /usr/sbin, which is not on every user's path
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")
    if path is not None:
        return path
    if os.environ.get("REGRAFT_REQUIRE_TOOLS", "") not in ("", "0"):
        pytest.fail(f"{name} is missing, but REGRAFT_REQUIRE_TOOLS is set")
    pytest.skip(f"{name} is missing")
