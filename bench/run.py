# SPDX-License-Identifier: Apache-2.0
"""`make bench`: our figures beside the real tools', as ratios of one run. Measures and prints; never fails for a ratio.

bench/run.py [--json] [--runs N] [--row NAME]...

NAME: pack, index, casync, install, kept, link, merge, update-diff, view, memory, layout, clone, served, store-memory
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

import material
from clone import clone, served, store_memory
from layout import layout
from rows import ROWS, Row, measure

ROWS["layout"] = layout
ROWS |= {"clone": clone, "served": served, "store-memory": store_memory}


def main() -> None:
    parser = argparse.ArgumentParser(description="Our figures beside the real tools', as ratios of one run.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each, in turn (default 3)")
    parser.add_argument("--row", action="append", choices=list(ROWS), help="only this group of rows; repeatable")
    options = parser.parse_args()
    pair = material.find()
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    found: list[Row] = []
    if not options.json:
        print(f"measured with {pair.origin}; {cores} cores, load {load:.1f} before; median of {options.runs} runs")
        print("seconds of wall time (least-most, seconds of processor time)\n")
    for row in measure(options.row or list(ROWS), pair, max(options.runs, 1)):
        found.append(row)
        if not options.json:
            _print(row)
    if options.json:
        json.dump(
            {"schema": 1, "kind": "bench", "material": pair.origin, "cores": cores, "load": load,
             "runs": options.runs, "rows": [asdict(row) for row in found]},
            sys.stdout, indent=2,
        )  # fmt: skip
        print()
    else:
        missed = [row.name for row in found if row.holds is False]
        print(f"\n{len(found)} rows; " + (f"goals not reached: {', '.join(missed)}" if missed else "every goal holds"))


def _print(row: Row) -> None:
    verdict = {True: "holds", False: "DOES NOT HOLD", None: ""}[row.holds]
    ratio = "" if row.ratio is None else f"ratio {row.ratio:.2f}"
    print(f"{row.name:24} {ratio:12} {row.goal and 'goal ' + row.goal:14} {verdict}")
    print(f"    {row.what}\n    ours  {row.ours}" + (f"\n    peer  {row.peers}" if row.peers else ""), flush=True)


if __name__ == "__main__":
    main()
