# SPDX-License-Identifier: Apache-2.0
"""Running regraft's command line inside a test."""

from __future__ import annotations

import pytest

from regraft.cli import main


def regraft(*arguments: object) -> int:
    """Run `regraft ARGUMENTS` in this process; its exit status. What it prints is for `capsys`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)
