# SPDX-License-Identifier: Apache-2.0
"""`relay.py PORT ROUND_TRIP BANDWIDTH`: a slow link to a port of this machine, until stdin ends; prints its URL.

ROUND_TRIP in seconds, BANDWIDTH in bytes per second.
"""

from __future__ import annotations

import sys

from regraft.testing.link import DelayedLink

port, round_trip, bandwidth = sys.argv[1:]
with DelayedLink("127.0.0.1", int(port), round_trip=float(round_trip), bandwidth=float(bandwidth)) as line:
    print(line.url, flush=True)
    sys.stdin.read()
