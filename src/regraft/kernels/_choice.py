# SPDX-License-Identifier: Apache-2.0
"""Native kernels or their twins: decided once, when the kernels are first imported."""

from __future__ import annotations

import os
from array import array
from typing import Any, Protocol, TypeAlias, cast

import regraft
from regraft.errors import MissingError, UsageError

Buffer: TypeAlias = bytes | bytearray | memoryview

VARIABLE = "REGRAFT_KERNELS"


class Kernels(Protocol):
    """What both implementations offer; what the functions mean is written where they are public."""

    NATIVE: bool

    def zck_index(self, data: memoryview, final: bool, algorithm: str, threads: int, /) -> tuple[array[int], bytes]: ...
    def zck_cuts(self, data: memoryview, final: bool, /) -> array[int]: ...
    def rolling_index(
        self, data: memoryview, kind: str, parameters: tuple[int, int, int, int], place: tuple[int, int, int],
        final: bool, algorithm: str | None, threads: int, /,
    ) -> tuple[array[int], bytes, int]: ...  # fmt: skip
    def casync_index(
        self, data: memoryview, parameters: tuple[int, int, int], searched: int, final: bool, algorithm: str | None,
        threads: int, /,
    ) -> tuple[array[int], bytes]: ...  # fmt: skip
    def digest_ranges(self, data: memoryview, lengths: array[int], algorithm: str, threads: int, /) -> bytes: ...
    def data_runs(self, data: memoryview, block: int, /) -> array[int]: ...
    def merge_order(
        self, bounds: array[int], at: array[int], role: bytes, cost: array[int], sizes: tuple[int, int, int],
        edges: int, /,
    ) -> tuple[array[int], array[int], bytes, array[int], int]: ...  # fmt: skip
    def merge_check(
        self, bounds: array[int], at: array[int], role: bytes, columns: tuple[array[int], array[int], bytes],
        window: int, /,
    ) -> int: ...  # fmt: skip
    def build_info(self) -> dict[str, Any]: ...


def choose() -> tuple[Kernels, str]:
    """The kernels to use, and in a few words why. Raises UsageError or MissingError if the environment asks for others
    than there are."""
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "python", "native"):
        raise UsageError(f"{VARIABLE} is {wish!r}", cure="set it to python or native, or not at all")
    if wish == "python":
        return _twins(), f"{VARIABLE}=python"
    reason = _fault()
    if not reason:
        from regraft.kernels import _native

        return cast(Kernels, _native), "regraft-native is installed"
    if wish == "native":
        raise MissingError(
            f"{VARIABLE}=native, but {reason}", cure="pip install ./native, which needs a Rust toolchain"
        )
    return _twins(), reason


def _fault() -> str:
    """Why the native module cannot be used; empty if it can."""
    try:
        import regraft_native
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "regraft_native"
        return "regraft-native is not installed" if missing else f"regraft-native cannot be loaded: {error}"
    if regraft_native.__version__ != regraft.__version__:
        return f"regraft-native {regraft_native.__version__} does not belong to regraft {regraft.__version__}"
    return ""


def _twins() -> Kernels:
    from regraft.kernels import _twins

    return cast(Kernels, _twins)
