"""One request and its reply: whole, or as a stream of pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InvalidReply, OllamaBridgeError, StreamInterrupted, Timeout
from .actions import Emit, FaultKind, Open, Read, Send, TransportFault
from .diagnosis import OK, from_body, from_error, from_fault, from_status
from .protocol import Answer, LineDecoder, decode_object, error_of
from .types import Delta, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .actions import Flow
    from .flow import Trip
    from .types import Head, Request, Target
    from .visit import Visit


def whole(trip: Trip, visit: Visit, request: Request, *, fresh: bool) -> Flow[Answer]:
    """Ask for the answer in one piece."""
    endpoint = visit.target.endpoint
    response: Response = yield Send(endpoint, request, trip.deadline.end, fresh)
    answer = _read(response, visit.target, wall=trip.wall())
    if not answer.done:
        raise _cut_short(visit.target, answer.text)
    return answer


def streamed(trip: Trip, visit: Visit, request: Request, *, fresh: bool) -> Flow[Answer]:
    """Ask for the answer piece by piece, and emit each as it comes."""
    endpoint = visit.target.endpoint
    head: Head = yield Open(endpoint, request, trip.deadline.end, fresh)
    if head.status != OK:
        body = yield from _rest(trip, endpoint.max_response_bytes)
        raise from_status(head, body, visit.target, wall=trip.wall())
    return (yield from _Relay(trip, visit, head).run())


def _cut_short(target: Target, partial: str) -> InvalidReply:
    error = InvalidReply(
        "The server ended its answer without saying that it is done. See its log",
        endpoint=target.endpoint.name,
        model=target.model,
        status=OK,
    )
    error.partial = partial
    return error


def _rest(trip: Trip, limit: int) -> Flow[bytes]:
    body = bytearray()
    while data := (yield Read(trip.deadline.end)):
        body += data
        if len(body) > limit:
            raise TransportFault(FaultKind.TOO_LARGE)
    return bytes(body)


def _read(response: Response, target: Target, *, wall: float) -> Answer:
    if response.status != OK:
        raise from_status(response, response.body, target, wall=wall)
    return _parse(response.body, response, target)


def _parse(body: bytes, head: Head, target: Target) -> Answer:
    reply = decode_object(body)
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
        self.lines = LineDecoder()
        self.size = 0
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.tool_calls: list[Mapping[str, Any]] = []
        self.proven = False
        self.begun = False

    def run(self) -> Flow[Answer]:
        try:
            last = yield from self._relay()
        except TransportFault as fault:
            if not self.begun:
                raise
            raise self._broken(fault) from fault
        except OllamaBridgeError as error:
            if not self.begun:
                raise
            raise self._interrupted(str(error)) from error
        return self._whole(last)

    def _relay(self) -> Flow[Answer]:
        while data := (yield Read(self._until())):
            self.size += len(data)
            if self.size > self.target.endpoint.max_response_bytes:
                raise TransportFault(FaultKind.TOO_LARGE)
            for line in self.lines.feed(data):
                if (last := (yield from self._line(line))) is not None:
                    return last
        for line in self.lines.finish():
            if (last := (yield from self._line(line))) is not None:
                return last
        raise _cut_short(self.target, "".join(self.texts))

    def _line(self, line: bytes) -> Flow[Answer | None]:
        answer = _parse(line, self.head, self.target)
        if not self.proven:
            self.visit.prove()
            self.proven = True
        if answer.text or answer.thinking:
            self.begun = True
            self.texts.append(answer.text)
            self.thoughts.append(answer.thinking)
            yield Emit(Delta(answer.text, answer.thinking))
        self.tool_calls.extend(answer.tool_calls)
        return answer if answer.done else None

    def _until(self) -> float:
        """Return the end of the next read: the call's before the first piece, then of a silence."""
        deadline = self.trip.deadline
        if not self.begun:
            return deadline.end
        idle = self.trip.now() + self.trip.call.chunk_timeout
        return idle if self.trip.call.timeout is None else min(idle, deadline.end)

    def _broken(self, fault: TransportFault) -> OllamaBridgeError:
        error = from_fault(fault, self.target, phase="total" if self._is_over() else "idle")
        if not isinstance(error, Timeout):
            return self._interrupted(str(error))
        error.partial = "".join(self.texts)
        return error

    def _is_over(self) -> bool:
        return self.trip.call.timeout is not None and not self.trip.left()

    def _interrupted(self, sentence: str) -> StreamInterrupted:
        error = StreamInterrupted(
            sentence, endpoint=self.target.endpoint.name, model=self.target.model, status=OK
        )
        error.partial = "".join(self.texts)
        return error

    def _whole(self, last: Answer) -> Answer:
        return Answer(
            text="".join(self.texts),
            thinking="".join(self.thoughts),
            tool_calls=tuple(self.tool_calls),
            model=last.model,
            done=True,
            done_reason=last.done_reason,
            usage=last.usage,
        )
