# SPDX-License-Identifier: Apache-2.0
"""What an HTTP status that is no success means for us (RFC 9110 section 15): try again, or tell the user. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from regraft.errors import StatusError
from regraft.transports.headers import parse_retry_after

#: Answers that blame the request's form, which a request for fewer ranges may mend.
ABOUT_RANGES = frozenset((400, 413, 414, 416, 431, 501))

_CURES = {
    401: "give the user name and password, or the token, that the server asks for",
    403: "the server refuses: check the credentials, and whether the URL has expired",
    404: "there is no such file: check the URL, and that the publisher has uploaded it",
    407: "give the user name and password of the proxy",
    410: "the publisher has withdrawn the file: get a newer bundle",
    416: "the file is shorter than its index says: get the bundle that belongs to it",
    429: "the server limits its clients: try again later",
    431: "the server refuses long headers: use a shorter token or URL",
}
_MAY_PASS = frozenset((408, 421, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529))


def status_error(status: int, url: str) -> StatusError:
    """The error to raise for `status`."""
    cure = _CURES.get(status, "")
    if not cure and status >= 500:
        cure = "the server is in trouble: try again later"
    return StatusError(f"{url} answered {status}", status=status, cure=cure)


def may_pass(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _MAY_PASS


def asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """How long the server asks us to wait, in seconds; `now` in seconds since 1970."""
    return parse_retry_after(headers.get("retry-after"), now)


def backoff(failures: int, chance: float, asked: float | None, longest: float) -> float:
    """Seconds to wait before the next try: doubles with each failure in a row, never below what was asked for.

    `chance` in [0, 1) spreads clients that failed together. `longest` caps all.
    """
    wait = 0.25 * 2.0 ** min(max(failures, 0), 20) * (0.5 + chance / 2)
    if failures <= 0:
        wait = 0.02  # something had arrived: the link is there
    return min(max(wait, asked or 0.0), longest)
