# SPDX-License-Identifier: Apache-2.0
"""Writing with holes."""

from __future__ import annotations

from regraft import kernels
from regraft.engine.medium import Medium

#: Runs of zeros that are worth a hole.
_HOLE = 16384


def write_sparse(target: Medium, offset: int, data: memoryview) -> None:
    """Write `data`, leaving holes for its longer runs of zeros where `target` is sparse. Raises MediumError."""
    if not target.sparse:
        target.write(offset, data)
        return
    end = 0
    runs = kernels.data_runs(data, _HOLE)
    for start, stop in zip(runs[::2], runs[1::2], strict=True):
        target.zero(offset + end, start - end)
        target.write(offset + start, data[start:stop])
        end = stop
    target.zero(offset + end, len(data) - end)
