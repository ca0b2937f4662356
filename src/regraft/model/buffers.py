# SPDX-License-Identifier: Apache-2.0
"""The bytes-like types that regraft passes around (collections.abc.Buffer came only with Python 3.12)."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
