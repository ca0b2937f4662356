# SPDX-License-Identifier: Apache-2.0
"""What to make of an answer: one range, several, the whole file, or a refusal. Whatever is of use in it is used."""

from __future__ import annotations

from abc import ABC, abstractmethod

from regraft.engine.ranges import Request
from regraft.errors import ChangedError, FormatError, LimitError, TransportError
from regraft.transports.connections import Interrupted
from regraft.transports.headers import (
    ContentRange,
    multipart_boundary,
    parse_content_range,
    parse_unsatisfied,
)
from regraft.transports.ladder import Answer
from regraft.transports.multipart import MultipartParser
from regraft.transports.response import Response
from regraft.transports.source import UrlSource
from regraft.transports.statuses import ABOUT_RANGES
from regraft.transports.wants import Cutter, Want

_SLACK = 64 << 10  # bytes of a body beyond what could be of use, before it counts as endless


class Takes(ABC):
    """Who takes what an answer brings. `request` is None for a plain GET."""

    def __init__(self, source: UrlSource, wants: list[Want], request: Request | None) -> None:
        self.source = source
        self.wants = wants
        self.request = request
        self.completed = 0
        self.waited = False

    @abstractmethod
    def deliver(self, position: int, content: bytes) -> None:
        """A range is complete."""

    @abstractmethod
    def next_want(self) -> Want | None:
        """The next range to cut out of the whole file; None when no more is wanted of it."""

    @abstractmethod
    def begin_stream(self) -> bool:
        """Whether the whole file may be used for whatever anybody wants of it."""

    @abstractmethod
    def proved(self) -> None:
        """The server takes ranges."""


def take_answer(task: Takes, response: Response) -> Answer:
    """Take all that is of use in `response`; say how it differs from what was asked.

    Raises Interrupted when it broke off or may be better later, StatusError, ChangedError, TransportError.
    """
    source, request = task.source, task.request
    if response.status == 200:
        source.identify(response)
        if request is not None:
            # from now on the others wait: this one is the stream for all of them
            source.stepped(source.level, len(request.spans), Answer.WHOLE)
        if not task.begin_stream():
            return Answer.WHOLE
        _stream(task, response, 0, None)
        return Answer.GOOD if request is None else Answer.WHOLE
    if request is not None and response.status == 206:
        try:
            if response.encoding:
                return Answer.ENCODED
            source.identify(response)
            boundary = multipart_boundary(response.headers.get("content-type"))
            if boundary is not None:
                return _multipart(task, request, response, boundary)
            return _single(task, request, response)
        except (FormatError, LimitError):
            return Answer.MALFORMED
    if request is not None and response.status in ABOUT_RANGES:
        size = parse_unsatisfied(response.headers.get("content-range")) if response.status == 416 else None
        if size is not None and size < request.spans[-1].end:
            raise ChangedError(f"{source.url} has {size} bytes, but bytes up to {request.spans[-1].end} are wanted")
        response.drain()
        return Answer.REFUSED
    if response.status == 206:
        raise TransportError(f"{source.url} answered 206 to a request for the whole file", cure="check the proxy")
    refusal = source.fetcher.refusal(response)
    response.drain()
    raise refusal


def _single(task: Takes, request: Request, response: Response) -> Answer:
    text = response.headers.get("content-range")
    if text is None:
        return Answer.MALFORMED
    found = parse_content_range(text)
    if found.end - found.start > 2 * request.total + _SLACK and found.start <= request.spans[0].offset:
        # far more than was asked for, in one run: it may hold what the others want as well
        if not task.begin_stream():
            return Answer.WHOLE
        _stream(task, response, found.start, found.end)
        return Answer.WHOLE
    if not any(found.start < span.end and span.offset < found.end for span in request.spans):
        return Answer.MALFORMED
    task.proved()
    cutter = Cutter(task.wants)
    offset = found.start
    while offset < found.end and (data := response.read()):
        view = memoryview(data)[: found.end - offset]
        for position, content in cutter.feed(offset, view):
            task.deliver(position, content)
        offset += len(view)
    if cutter.done:
        response.drain()
        return Answer.GOOD
    if offset < found.end:
        raise _broke_off(response, found.end - offset)
    response.drain()
    return _what_is_missing(request, found)


def _what_is_missing(request: Request, found: ContentRange) -> Answer:
    if len(request.spans) > 1 and found.end <= request.spans[1].offset:
        return Answer.FIRST_ONLY
    return Answer.INCOMPLETE if len(request.spans) > 1 else Answer.GOOD


def _multipart(task: Takes, request: Request, response: Response, boundary: bytes) -> Answer:
    source = task.source
    limits = source.fetcher.limits
    parser = MultipartParser(boundary, total=source.size, limits=limits)
    cutter = Cutter(task.wants)
    proved = False
    while data := response.read():
        for offset, view in parser.feed(data):
            for position, content in cutter.feed(offset, view):
                task.deliver(position, content)
        if parser.parts and not proved:
            proved = True
            if parser.total is not None:
                source.learn_size(parser.total)
            task.proved()
        if cutter.done or parser.finished:
            break
        most = (parser.total or 2 * request.total) + (len(request.spans) + 8) * limits.part_header + _SLACK
        if response.received > most:
            raise FormatError(f"multipart body of more than {most} bytes", offset=response.received)
    if cutter.done or parser.finished:
        response.drain()
        return Answer.GOOD if cutter.done else Answer.INCOMPLETE
    parser.finish()
    raise _broke_off(response, sum(want.range.length for want in cutter.left()))


def _broke_off(response: Response, missing: int) -> Interrupted:
    return Interrupted(TransportError(f"{response.location.url}: the answer ended {missing} bytes too soon"))


def _stream(task: Takes, response: Response, start: int, end: int | None) -> None:
    """Cut what is wanted out of the file as it passes, from `start` on; `end` if it is known to end before the file."""
    source = task.source
    waiting = sorted((want for want in task.wants if not want.done), key=lambda want: want.position)
    waiting.reverse()
    offset = start
    want = waiting.pop() if waiting else task.next_want()
    if want is None:
        return
    for data in response.plain():
        view = memoryview(data)
        if end is not None:
            view = view[: end - offset]
        while want is not None and want.range.offset < offset + len(view):
            content = want.put(offset, view)
            if content is not None:
                task.deliver(want.position, content)
            elif want.range.end > offset + len(view):
                break  # its rest comes with the next piece
            # else it began before this stream did: it is left for another request
            want = waiting.pop() if waiting else task.next_want()
        if task.waited:
            task.waited = False
            response.resume()
        offset += len(view)
        if want is None or offset == end:
            return
    if end is not None or not response.framed or (source.size is not None and offset < source.size):
        raise _broke_off(response, want.range.end - offset)
    raise ChangedError(f"{source.url} has {offset} bytes, but bytes up to {want.range.end} are wanted")
