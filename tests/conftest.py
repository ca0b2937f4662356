# SPDX-License-Identifier: Apache-2.0
"""What all tests share: images with known content, and a state folder of their own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import settings
from images import Pair, make_pair

# A busy machine is no fault of the code: no test is judged by time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def pair() -> Pair:
    """An old and a new image of two megabytes: moved, changed, equal and zero ranges."""
    return make_pair(random.Random(20221))


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test leaves anything in the machine's own state folder."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("REGRAFT_STATE", str(folder))
    return folder
