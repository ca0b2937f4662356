# SPDX-License-Identifier: Apache-2.0
"""The artifacts that released versions made, and what lies in them."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
PATHS = sorted(FOLDER.glob("*.zck"))
IMAGE_SHA256 = "af2e2f9f5908fb49bd1ac1bfbf7dbac25d478ed8cda2aa7992ccb6efa624da05"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
