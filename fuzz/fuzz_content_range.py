# SPDX-License-Identifier: Apache-2.0
"""The values of headers that a peer sends, URLs of redirects, and the file of known hosts."""

from __future__ import annotations

import math

from regraft.errors import RegraftError, StateError
from regraft.server.byteranges import etag_matches, select
from regraft.transports import headers
from regraft.transports.hosts import HostMemory
from regraft.transports.policy import Policy, parse_url

_ORIGIN = parse_url("http://example.org/")


def target(data: bytes) -> None:
    text = data.decode("latin-1")
    try:
        found = headers.parse_content_range(text)
    except RegraftError:
        pass
    else:
        assert 0 <= found.start < found.end
        assert found.total is None or found.end <= found.total
    wait = headers.parse_retry_after(text, 1.7e9)
    assert wait is None or (wait >= 0 and math.isfinite(wait))
    headers.parse_unsatisfied(text)
    headers.parse_length(text)
    headers.multipart_boundary(text)
    validator = headers.Validator.of({"etag": text, "last-modified": text})
    assert not {"\r", "\n"} & set(validator.if_range)
    selection = select(text, 1000, most=20)
    assert sum(span.length for span in selection.ranges) <= 1000
    etag_matches(text, '"a"', weak=True)
    try:
        location = Policy().follow(_ORIGIN, _ORIGIN, text)
    except RegraftError:
        pass
    else:
        assert location.scheme in ("http", "https")
    try:
        HostMemory.parse(data).dump()
    except StateError:
        return


def seeds() -> list[bytes]:
    return [
        b"bytes 0-9/100",
        b"bytes */100",
        b"bytes=0-1,5-,-7",
        b"120",
        b"Fri, 20 Nov 2026 10:00:00 GMT",
        b'multipart/byteranges; boundary="x"',
        b'W/"abc"',
        b"https://cdn.example.org/x?y#z",
        b"//[::1]:80/",
        b'{"version": 1, "hosts": [{"origin": "a", "level": "few", "seen": 5, "bandwidth": 1e6, "round_trip": 1}]}',
    ]
