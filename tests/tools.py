# SPDX-License-Identifier: Apache-2.0
"""The real tools and optional parts that tests run against: skipped where missing, unless they are required."""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def required() -> bool:
    """Whether a missing tool is a failure (as in CI)."""
    return os.environ.get("REGRAFT_REQUIRE_TOOLS", "") not in ("", "0")


def missing(what: str) -> NoReturn:
    """Skip the test, or fail it where everything is required."""
    if required():
        pytest.fail(f"{what} is missing, but REGRAFT_REQUIRE_TOOLS is set")
    pytest.skip(f"{what} is missing")


def tool(name: str) -> str:
    """The path of a program."""
    # swupdate and its kin lie in /usr/sbin, which is not on every user's path.
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin")
    return path if path is not None else missing(name)


def native_kernels() -> ModuleType:
    """The native kernels, with the signatures of their twins."""
    try:
        return importlib.import_module("regraft.kernels._native")
    except ModuleNotFoundError as error:
        if error.name != "regraft_native":
            raise
        if os.environ.get("REGRAFT_KERNELS") == "python":
            pytest.skip("the native kernels are not wanted")
        # They are no tool that can be asked for everywhere; but where there is Rust they should have been built.
        if shutil.which("cargo") is None:
            pytest.skip("regraft-native is missing")
        missing("regraft-native")
