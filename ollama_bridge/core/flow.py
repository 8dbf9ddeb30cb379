"""How a call goes, as generators that decide and never act.

::

    deadline -> for each target: hear others -> refused? -> slot -> permits -> attempts -> outcome
             -> the answer, or the next target, or give up with all that was tried

A flow yields actions and is sent their results; a ``TransportFault`` is thrown into it where the
network failed. Drivers perform: ``transports.blocking`` with requests, ``transports.aio`` with
aiohttp. So there is one place that retries, fails over, breaks, waits and counts.

A flow reads only the clock it is given. It cannot yield while it is being closed, so what must be
cleaned up is cleaned up by ``Visit``, which never blocks.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import (
    AllEndpointsFailed,
    OllamaBridgeError,
)
from .actions import FaultKind, Flow, Sleep, TransportFault, Wait
from .deadline import Deadline
from .diagnosis import from_fault
from .events import (
    AttemptRepeated,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallRefused,
    CallStarted,
)
from .outcome import is_of_the_request
from .types import Attempt, ChatReply
from .visit import Visit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import Phase
    from .protocol import Answer, ChatRequest
    from .routing import Router
    from .types import Endpoint, Request, Target


PATIENCE = 0.05
"""The most seconds that a call waits for what other processes know."""


class Call(NamedTuple):
    """What a caller wants. Times are in seconds.

    ``model`` is None for each endpoint's own, and each limit for what the settings grant. Calls of
    a ``batch`` wait for their slot behind all others.

    Of a stream, ``timeout`` bounds the whole, ``first_token_timeout`` everything up to its first
    piece, and ``chunk_timeout`` each silence after that. It ends, truncated, before it has more
    than ``max_chunks`` pieces or ``max_bytes`` of text and thinking, in UTF-8.
    """

    request: ChatRequest
    request_id: str
    model: str | None = None
    timeout: float | None = None
    prompt_length: int = 0
    batch: bool = False
    first_token_timeout: float | None = None
    chunk_timeout: float | None = None
    max_chunks: int | None = None
    max_bytes: int | None = None


class Trip:
    """A call under way: its deadline, and everything that was tried so far.

    A stream has ``deadline`` to begin, and ``end`` is that of the whole, if the caller set one.
    ``phase`` is what running out of the deadline is called.
    """

    __slots__ = (
        *("attempts", "begun", "call", "deadline", "end", "now", "phase", "repeats", "router"),
        *("sent", "started"),
    )

    def __init__(self, router: Router, call: Call) -> None:
        self.router = router
        self.call = call
        self.now = router.clock.monotonic
        self.started = self.now()
        granted, usual, self.phase = _limits(call, router.default.endpoint)
        self.deadline = Deadline.after(granted, now=self.started, usual=usual)
        self.end = math.inf if call.timeout is None else self.started + call.timeout
        self.attempts: list[Attempt] = []
        self.repeats = 0
        self.sent = False
        self.begun = False  # whether the caller has a piece of a stream

    def wall(self) -> float:
        return self.router.clock.wall()

    def left(self) -> float:
        return self.deadline.left(self.now())

    def is_too_late(self, delay: float) -> bool:
        """Tell whether an attempt after a delay would hardly begin before the end.

        Being cut off at once, it would only hide what really failed before it.
        """
        return delay + min(1.0, self.deadline.seconds / 10) >= self.left()

    def is_over(self) -> bool:
        """Tell whether the time that the caller grants the whole is over."""
        return self.now() >= self.end

    def note(self, target: Target, since: float, error: OllamaBridgeError | None = None) -> None:
        attempt = Attempt(
            endpoint=target.endpoint.name,
            model=target.model,
            code=error.code if error else "",
            status=error.status if error else 200,
            seconds=self.now() - since,
        )
        self.attempts.append(attempt)


def _limits(call: Call, endpoint: Endpoint) -> tuple[float, float, Phase]:
    """Return the seconds granted and usual for an answer, or for a stream to begin; and the phase.

    Who gives a stream more time as a whole also gives it more to begin, unless that has a limit of
    its own.
    """
    granted = endpoint.timeout if call.timeout is None else call.timeout
    if not call.request.stream:
        return granted, endpoint.timeout, "total"
    of_settings = endpoint.first_token_timeout
    first = of_settings if call.first_token_timeout is None else call.first_token_timeout
    usual = endpoint.timeout if of_settings is None else of_settings
    if call.timeout is not None and (first is None or call.timeout <= first):
        return call.timeout, usual, "total"
    return granted if first is None else first, usual, "first_token"


class Exchange(Protocol):
    """One request to one endpoint, on a ``fresh`` connection if need be: see ``exchanges``."""

    def __call__(
        self, trip: Trip, visit: Visit, request: Request, *, fresh: bool
    ) -> Flow[Answer]: ...


def answer(router: Router, call: Call, exchange: Exchange) -> Flow[ChatReply]:
    """Answer a call, or raise what stands in the way.

    Raises:
        OllamaBridgeError: with everything that was tried in ``attempts``.
    """
    trip = Trip(router, call)
    targets = router.targets(call.model)
    try:
        target, found = yield from _first_answer(trip, targets, exchange)
    except OllamaBridgeError as error:
        error.attempts = tuple(trip.attempts)
        router.observe(_ended(trip, error))
        raise
    except GeneratorExit:  # the caller left, perhaps in the collector: no moment to report
        router.soon(router.tell, _left(trip))
        raise
    return _reply(trip, target, found)


def _ended(trip: Trip, error: OllamaBridgeError) -> CallFailed | CallRefused:
    if not trip.sent:
        return CallRefused(error=error, request_id=trip.call.request_id)
    return CallFailed(
        repeats=trip.repeats,
        seconds=trip.now() - trip.started,
        error=error,
        request_id=trip.call.request_id,
    )


def _left(trip: Trip) -> CallCancelled:
    target = trip.router.targets(trip.call.model)[0]
    return CallCancelled(
        seconds=trip.now() - trip.started,
        endpoint=target.endpoint.name,
        model=target.model,
        request_id=trip.call.request_id,
    )


def _first_answer(
    trip: Trip, targets: Sequence[Target], exchange: Exchange
) -> Flow[tuple[Target, Answer]]:
    errors: list[OllamaBridgeError] = []
    for target in targets:
        yield from _heard(trip, target)
        try:
            with _enter(trip, target) as visit:
                return target, (yield from _visit(trip, visit, exchange))
        except OllamaBridgeError as error:
            if len(targets) == 1 or trip.begun or is_of_the_request(error):
                raise
            errors.append(error)
        if not trip.left():
            break
    raise merged(errors)


def merged(errors: Sequence[OllamaBridgeError]) -> OllamaBridgeError:
    """Return the one error that stands for several: the last, if all are of its class."""
    *_, last = errors
    waits = [error.retry_after for error in errors if error.retry_after is not None]
    if all(type(error) is type(last) for error in errors):
        last.retry_after = min(waits, default=None)
        return last
    told = "; ".join(f"{error.endpoint}: {error}" for error in errors)
    all_failed = AllEndpointsFailed(
        f"All endpoints failed. {told}", model=last.model, retry_after=min(waits, default=None)
    )
    all_failed.__cause__ = last
    return all_failed


def _visit(trip: Trip, visit: Visit, exchange: Exchange) -> Flow[Answer]:
    if not visit.admitted or visit.is_probe:
        yield from _begin(trip, visit)
    request = trip.call.request.to(visit.target.model)
    number = 0
    while True:
        number += 1
        try:
            return (yield from _attempt(trip, visit, request, exchange))
        except OllamaBridgeError as error:
            visit.cool_down(error)
            delay = _repeat_after(trip, visit, number, error)
            if delay is None:
                raise
            failed = error.with_traceback(None)
        yield from _pause(trip, visit, delay, failed)
        yield from _resume(trip, visit, failed)


def _enter(trip: Trip, target: Target) -> Visit:
    since = trip.now()
    try:
        return Visit(trip.router, target, trip.deadline, batch=trip.call.batch)
    except OllamaBridgeError as refusal:
        trip.note(target, since, refusal)
        raise


def _heard(trip: Trip, target: Target) -> Flow[None]:
    """Wait, but not for long, for what other processes know, where this call is the one to ask."""
    ticket = trip.router.hear(target)
    if ticket is not None:
        yield Wait(ticket, min(trip.now() + PATIENCE, trip.deadline.end))


def _begin(trip: Trip, visit: Visit) -> Flow[None]:
    """Wait for the slot, and for the word of all processes where this call is the probe."""
    since = trip.now()
    try:
        if not visit.admitted:
            yield from _slot(trip, visit)
            visit.admit()
        yield from _claimed(trip, visit)
    except OllamaBridgeError as refusal:  # for what happened while the call waited for its slot
        trip.note(visit.target, since, refusal)
        raise


def _pause(trip: Trip, visit: Visit, delay: float, failed: OllamaBridgeError) -> Flow[None]:
    """Sleep without a slot, and on while the endpoint cools down for what others were told."""
    visit.pause()
    while True:
        yield Sleep(delay)
        delay = trip.router.cooldown(visit.target.endpoint)
        if not delay:
            return
        if trip.is_too_late(delay):
            failed.retry_after = delay
            raise failed


def _resume(trip: Trip, visit: Visit, failed: OllamaBridgeError) -> Flow[None]:
    """Go on, unless that is refused meanwhile: then what failed is what there is to say."""
    try:
        visit.resume()
        yield from _slot(trip, visit)
        visit.admit()
        yield from _claimed(trip, visit)
    except OllamaBridgeError as refusal:
        failed.retry_after = refusal.retry_after
        raise failed from None


def _claimed(trip: Trip, visit: Visit) -> Flow[None]:
    """Let a probe be the only one of all processes; where they cannot be asked, go on alone.

    Raises:
        CircuitOpen: another process probes, or it takes long to learn whether one does.
    """
    home = trip.router.home
    while visit.is_unconfirmed():
        ticket = home.claim(trip.now())
        until = min(trip.now() + PATIENCE, trip.deadline.end)
        if ticket is not None and not (yield Wait(ticket, until)) and home.hears(trip.now()):
            visit.stand_back()
        visit.admit()
        if ticket is None:
            return


def _slot(trip: Trip, visit: Visit) -> Flow[None]:
    while not visit.ticket.granted:
        if (yield Wait(visit.ticket, trip.deadline.end)):
            return
        if not trip.left():
            raise visit.give_up()
        visit.resume()


def _attempt(trip: Trip, visit: Visit, request: Request, exchange: Exchange) -> Flow[Answer]:
    if not trip.sent:
        _start(trip, visit.target)
    since = trip.now()
    try:
        found = yield from _replayed(trip, visit, request, exchange)
    except TransportFault as fault:
        error = from_fault(fault, visit.target, phase=trip.phase)
        trip.note(visit.target, since, error)
        raise error from fault
    except OllamaBridgeError as error:
        trip.note(visit.target, since, error)
        raise
    trip.note(visit.target, since)
    return found


def _start(trip: Trip, target: Target) -> None:
    trip.sent = True
    trip.router.observe(
        CallStarted(
            prompt_length=trip.call.prompt_length,
            endpoint=target.endpoint.name,
            model=target.model,
            request_id=trip.call.request_id,
        )
    )


def _replayed(trip: Trip, visit: Visit, request: Request, exchange: Exchange) -> Flow[Answer]:
    """Replay, once per visit and for free, what was lost with a connection that just ended.

    A server closes kept connections when it likes, so the next request on one may find it gone.
    """
    try:
        return (yield from exchange(trip, visit, request, fresh=False))
    except TransportFault as fault:
        if fault.kind is not FaultKind.DROPPED or not visit.may_replay():
            raise
    return (yield from exchange(trip, visit, request, fresh=True))


def _repeat_after(trip: Trip, visit: Visit, number: int, error: OllamaBridgeError) -> float | None:
    """Return the seconds to wait before the next attempt, or None to give up here."""
    router, policy = trip.router, visit.target.endpoint.retry
    if number > policy.max_retries or not policy.repeats(error):
        return None
    delay = error.retry_after
    if delay is None:
        delay = policy.delay(number, router.uniform)
    if trip.is_too_late(delay) or not visit.may_repeat():
        return None
    trip.repeats += 1
    router.observe(
        AttemptRepeated(
            number=number,
            most=1 + policy.max_retries,
            delay=delay,
            error=error,
            request_id=trip.call.request_id,
        )
    )
    return delay


def _reply(trip: Trip, target: Target, found: Answer) -> ChatReply:
    reply = ChatReply(
        found.text,
        model=found.model or target.model,
        endpoint=target.endpoint.name,
        usage=found.usage,
        latency=trip.now() - trip.started,
        done_reason=found.done_reason,
        truncated=found.truncated,
        attempts=tuple(trip.attempts),
        request_id=trip.call.request_id,
        thinking=found.thinking,
        tool_calls=found.tool_calls,
    )
    trip.router.observe(
        CallAnswered(
            seconds=reply.latency,
            usage=reply.usage,
            endpoint=reply.endpoint,
            model=target.model,  # as we name it: a reply may say anything
            request_id=reply.request_id,
        )
    )
    return reply
