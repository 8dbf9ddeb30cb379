"""One request and its reply: whole, or as a stream of pieces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import InvalidReply, OllamaBridgeError, StreamInterrupted, Timeout
from .actions import Emit, FaultKind, Finish, Open, Read, Send, TransportFault
from .diagnosis import OK, TOO_MANY, from_body, from_error, from_fault, from_status
from .protocol import Answer, LineDecoder, decode_object, error_of, text_of
from .quota import from_headers
from .types import Delta, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .actions import Flow
    from .trip import Trip
    from .types import Endpoint, Head, Request, Target
    from .visit import Visit


# Seconds for which the end of a body may take after the last line. It comes along with it, so this
# costs nothing, and keeps the connection for the next call.
_GRACE = 0.05
_TELLING = (OK, TOO_MANY)


def whole(trip: Trip, visit: Visit, request: Request, *, fresh: bool) -> Flow[Answer]:
    """Ask for the answer in one piece."""
    endpoint = visit.target.endpoint
    response: Response = yield Send(endpoint, request, visit.deadline.end, fresh)
    _learn_quota(trip, endpoint, response)
    answer = _read(response, visit.target, wall=trip.wall())
    if not answer.done:
        raise _cut_short(visit.target, answer.text)
    return answer


def streamed(trip: Trip, visit: Visit, request: Request, *, fresh: bool) -> Flow[Answer]:
    """Ask for the answer piece by piece, and emit each as it comes."""
    endpoint = visit.target.endpoint
    head: Head = yield Open(endpoint, request, visit.deadline.end, fresh)
    _learn_quota(trip, endpoint, head)
    try:
        if head.status != OK:
            body = yield from _rest(visit.deadline.end, endpoint.max_response_bytes)
            raise from_status(head, body, visit.target, wall=trip.wall())
        answer = yield from _Relay(trip, visit, head).run()
    except (OllamaBridgeError, TransportFault):
        yield Finish(0.0)  # at once, before the slot goes to somebody else
        raise
    yield Finish(0.0 if answer.truncated else trip.now() + _GRACE)
    return answer


def _learn_quota(trip: Trip, endpoint: Endpoint, head: Head) -> None:
    """Take note of what is left of an account's allowance, where the headers say so."""
    if head.status in _TELLING:
        quota = from_headers(head.headers, wall=trip.wall())
        if quota is not None:
            trip.router.learn_quota(endpoint.name, quota)


def _cut_short(target: Target, partial: str) -> InvalidReply:
    error = InvalidReply(
        "The server ended its answer without saying that it is done. See its log",
        endpoint=target.endpoint.name,
        model=target.model,
        status=OK,
    )
    error.partial = partial
    return error


def _rest(until: float, limit: int) -> Flow[bytes]:
    body = bytearray()
    while data := (yield Read(until)):
        body += data
        if len(body) > limit:
            raise TransportFault(FaultKind.TOO_LARGE)
    return bytes(body)


def _read(response: Response, target: Target, *, wall: float) -> Answer:
    if response.status != OK:
        raise from_status(response, response.body, target, wall=wall)
    return _answer(decode_object(response.body), response, target)


def _answer(reply: Mapping[str, Any] | None, head: Head, target: Target) -> Answer:
    if reply is None:
        raise from_body(head, target)
    text = error_of(reply)
    if text is not None:
        raise from_error(text, target)
    answer = Answer.parse(reply)
    if answer is None:
        raise from_body(head, target)
    return answer


class _Relay:
    """A stream under way.

    What goes wrong before its first piece fails as any call does; after it, every failure keeps
    the text so far in ``partial``, and nothing is repeated.
    """

    def __init__(self, trip: Trip, visit: Visit, head: Head) -> None:
        self.trip = trip
        self.visit = visit
        self.head = head
        self.target = visit.target
        call, endpoint = trip.call, visit.target.endpoint
        idle = call.chunk_timeout
        self.idle = endpoint.chunk_timeout if idle is None else idle
        self.chunks_left = math.inf if call.max_chunks is None else call.max_chunks
        self.bytes_left = call.max_bytes
        self.is_bounded = call.max_chunks is not None or call.max_bytes is not None
        self.lines = LineDecoder()
        self.room = endpoint.max_response_bytes
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.tool_calls: list[Mapping[str, Any]] = []
        self.proven = False
        self.is_plain = False  # whether nothing but text is to be expected from here on

    def run(self) -> Flow[Answer]:
        try:
            last = yield from self._relay()
        except (TransportFault, OllamaBridgeError) as failure:
            if not self.trip.begun:
                raise
            if not self._is_full():
                raise self._told(failure) from failure
            last = Answer(truncated=True)  # what failed was only to show whether there is more
        return last._replace(
            text="".join(self.texts),
            thinking="".join(self.thoughts),
            tool_calls=tuple(self.tool_calls),
        )

    def _relay(self) -> Flow[Answer]:
        ended = False
        while not ended:
            data: bytes = yield Read(self._until())
            ended = not data
            for line in self.lines.finish() if ended else self.lines.feed(data[: self.room]):
                reply = decode_object(line)
                if self.is_plain and reply is not None and (text := text_of(reply)):
                    self.texts.append(text)
                    yield Emit(Delta(text))
                    continue
                answer = self._taken(reply)
                if answer.text or answer.thinking or answer.tool_calls:
                    yield Emit(Delta(answer.text, answer.thinking, answer.tool_calls))
                if answer.done or answer.truncated:
                    return answer
            self.room -= len(data)
            if self.room < 0:  # what still fitted was for the caller
                raise TransportFault(FaultKind.TOO_LARGE)
        raise _cut_short(self.target, "".join(self.texts))

    def _taken(self, reply: Mapping[str, Any] | None) -> Answer:
        """Return what is to be emitted of a line, and keep it."""
        answer = _answer(reply, self.head, self.target)
        if not self.proven:
            self.visit.prove()
            self.proven = True
        if answer.text or answer.thinking or answer.tool_calls:
            if self.is_bounded:
                answer = self._bounded(answer)
            self.texts.append(answer.text)
            if answer.thinking or answer.tool_calls:
                self.thoughts.append(answer.thinking)
                self.tool_calls.extend(answer.tool_calls)
            self.trip.begun = True
        self.is_plain = self.trip.begun and not self.is_bounded
        return answer

    def _bounded(self, answer: Answer) -> Answer:
        """Return as much of a piece as the caller's bounds leave room for."""
        if not self.chunks_left:
            return Answer(model=answer.model, truncated=True)
        self.chunks_left -= 1
        if self.bytes_left is None:
            return answer
        thinking = _head(answer.thinking, self.bytes_left)
        text = _head(answer.text, self.bytes_left - _size(thinking))
        self.bytes_left -= _size(thinking) + _size(text)
        if (thinking, text) == (answer.thinking, answer.text):
            return answer
        return Answer(text, thinking, answer.tool_calls, model=answer.model, truncated=True)

    def _until(self) -> float:
        """Return the end of the next read: the call's before the first piece, then of a silence."""
        if not self.trip.begun:
            return self.visit.deadline.end
        return min(self.trip.now() + self.idle, self.trip.end)

    def _is_full(self) -> bool:
        """Tell whether the caller has all that the bounds allow."""
        return self.chunks_left == 0 or self.bytes_left == 0

    def _told(self, failure: TransportFault | OllamaBridgeError) -> OllamaBridgeError:
        if isinstance(failure, TransportFault):
            return self._broken(failure)
        return self._interrupted(str(failure))

    def _broken(self, fault: TransportFault) -> OllamaBridgeError:
        is_over = self.trip.is_over()
        error = from_fault(fault, self.target, phase="total" if is_over else "idle")
        if not isinstance(error, Timeout):
            return self._interrupted(str(error))
        if is_over or self.idle < self.target.endpoint.chunk_timeout:
            self.visit.excuse()
        error.partial = "".join(self.texts)
        return error

    def _interrupted(self, sentence: str) -> StreamInterrupted:
        error = StreamInterrupted(
            sentence, endpoint=self.target.endpoint.name, model=self.target.model, status=OK
        )
        error.partial = "".join(self.texts)
        return error


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _head(text: str, most: int) -> str:
    """Return the beginning of a text, at most so many bytes of it in UTF-8, in whole characters."""
    return text if _size(text) <= most else text.encode()[:most].decode(errors="ignore")
