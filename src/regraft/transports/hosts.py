# SPDX-License-Identifier: Apache-2.0
"""What is known of hosts: the rung of the ladder and the link, kept from one run to the next. Pure but for a lock."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass

from regraft.engine.ranges import Link
from regraft.errors import StateError
from regraft.model.buffers import Buffer
from regraft.transports.ladder import Level

#: A server may have been repaired: what is older, in seconds, is forgotten.
LIFETIME = 7 * 86400.0
#: Hosts that are remembered; the longest unseen are forgotten first.
HOSTS = 256
#: Size of the file in bytes.
FILE_SIZE = 64 << 10

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Host:
    """`seen` is in seconds since 1970; `link` None when it was not measured."""

    level: Level
    link: Link | None
    seen: float


class HostMemory:
    """Hosts by origin (`scheme://name:port`). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}

    def recall(self, origin: str, now: float) -> Host | None:
        """What is known of `origin` and not out of date at `now`, in seconds since 1970."""
        with self._lock:
            host = self._hosts.get(origin)
        return host if host is not None and 0 <= now - host.seen <= LIFETIME else None

    def note(self, origin: str, level: Level, link: Link | None, now: float) -> None:
        with self._lock:
            self._hosts[origin] = Host(level, link, now)
            while len(self._hosts) > HOSTS:
                del self._hosts[min(self._hosts, key=lambda name: self._hosts[name].seen)]

    def dump(self) -> bytes:
        """As a small JSON file, the most recently seen hosts first."""
        with self._lock:
            ordered = sorted(self._hosts.items(), key=lambda item: (-item[1].seen, item[0]))
        entries: list[dict[str, object]] = []
        for origin, host in ordered:
            entry: dict[str, object] = {"origin": origin, "level": host.level.name.lower(), "seen": host.seen}
            if host.link is not None:
                entry |= {"bandwidth": host.link.bandwidth, "round_trip": host.link.round_trip}
            entries.append(entry)
        while True:
            content = json.dumps({"version": _VERSION, "hosts": entries}, indent=1).encode()
            if len(content) <= FILE_SIZE:
                return content
            del entries[len(entries) // 2 :]

    @classmethod
    def parse(cls, content: Buffer) -> HostMemory:
        """The reverse of `dump`; entries that make no sense are left out. Raises StateError when it is no such file."""
        if len(content) > FILE_SIZE:
            raise StateError(f"the file of known hosts has {len(content)} bytes, more than {FILE_SIZE}")
        try:
            tree = json.loads(bytes(content))
        except (ValueError, RecursionError) as error:
            raise StateError(f"the file of known hosts is not JSON: {error}") from error
        if not isinstance(tree, dict) or tree.get("version") != _VERSION or not isinstance(tree.get("hosts"), list):
            raise StateError(f"the file of known hosts is not of version {_VERSION}")
        memory = cls()
        for entry in tree["hosts"][:HOSTS]:
            if not isinstance(entry, dict):
                continue
            origin, level, seen = entry.get("origin"), entry.get("level"), _number(entry.get("seen"))
            if not isinstance(origin, str) or not isinstance(level, str) or len(origin) > 300 or seen is None:
                continue
            if level.upper() in Level.__members__:
                memory._hosts[origin] = Host(Level[level.upper()], _link(entry), seen)
        return memory


def _link(entry: dict[str, object]) -> Link | None:
    bandwidth, trip = _number(entry.get("bandwidth")), _number(entry.get("round_trip"))
    if bandwidth is None or trip is None or not 1 <= bandwidth <= 1e12 or not 0 <= trip <= 3600:
        return None
    return Link(bandwidth, trip)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
