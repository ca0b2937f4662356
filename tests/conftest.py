# SPDX-License-Identifier: Apache-2.0
"""What all tests share: images with known content, and artifacts of them."""

from __future__ import annotations

import random

import pytest
from images import Pair, make_pair


@pytest.fixture(scope="session")
def pair() -> Pair:
    """An old and a new image of some hundred kilobytes: moved, changed, equal and zero ranges."""
    return make_pair(random.Random(20221))
