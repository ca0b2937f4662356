# SPDX-License-Identifier: Apache-2.0
"""An order in which operations can be merged into the image that they read."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeAlias

#: (blocks that are written, byte offsets of the block that each reads, bytes of a block) -> (the operations in an order
#: in which none writes what a later one reads, the operations that must be replaced by their content).
Order: TypeAlias = Callable[[Sequence[int], Sequence[int], int], tuple["array[int]", "array[int]"]]


def simple_order(blocks: Sequence[int], sources: Sequence[int], block_size: int) -> tuple[array[int], array[int]]:
    """An `Order` for operations that read one whole block each; ascending where that is free.

    Whoever reads a block has to go before the one who writes it. Each operation waits for all readers of its block, and
    reads one block itself: the only circles are simple ones, and of each the operation with the lowest block is
    replaced. Raises ValueError for a source that is not a multiple of the block's size.
    """
    if any(source % block_size for source in sources):
        raise ValueError("operations that read parts of two blocks need another order")
    writer = {block: number for number, block in enumerate(blocks)}
    after = [writer.get(source // block_size, -1) for source in sources]  # the operation that has to wait for this one
    waits = array("I", bytes(4 * len(after)))
    for number, other in enumerate(after):
        if other == number:
            after[number] = -1
        elif other >= 0:
            waits[other] += 1
    free = [(blocks[number], number) for number in range(len(after)) if not waits[number]]
    heapify(free)
    order, replaced, done = array("I"), array("I"), bytearray(len(after))

    def run() -> None:
        while free:
            _, number = heappop(free)
            done[number] = 1
            order.append(number)
            other = after[number]
            if other >= 0:
                waits[other] -= 1
                if not waits[other]:
                    heappush(free, (blocks[other], other))

    run()
    for number in sorted(range(len(after)), key=blocks.__getitem__):
        if not done[number]:  # in a circle: what it would read is in the file instead, so nobody has to wait for it
            done[number] = 1
            replaced.append(number)
            other, after[number] = after[number], -1
            waits[other] -= 1
            if not waits[other]:
                free.append((blocks[other], other))
            waits[number] += 1  # it is not merged in this order any more
            run()
    return order, replaced
