# SPDX-License-Identifier: Apache-2.0
"""A command may open as many files as the system lets it."""

from __future__ import annotations

import resource

from commands import regraft


def test_a_command_has_all_descriptors_that_it_may_have() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft // 2, hard))
    try:
        assert regraft("--version") == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
