"""How a call goes, as generators that decide and never act.

::

    deadline -> for each target, in the order of ``routing``:
                hear others -> refused? -> slot -> permits -> attempts -> outcome
             -> the answer, or the next target, or a pause and once more, or give up

A flow yields actions and is sent their results; a ``TransportFault`` is thrown into it where the
network failed. Drivers perform: ``transports.blocking`` with requests, ``transports.aio`` with
aiohttp. So there is one place that retries, fails over, breaks, waits and counts.

A flow reads only the clock it is given. It cannot yield while it is being closed, so what must be
cleaned up is cleaned up by ``Visit``, which never blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import OllamaBridgeError
from .actions import FaultKind, Flow, Sleep, TransportFault, Wait
from .diagnosis import from_fault
from .events import (
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallFailedOver,
    CallRefused,
    CallStarted,
)
from .failed import Failed
from .outcome import is_refusal
from .sharing import PATIENCE, heard
from .trip import Trip
from .types import ChatReply
from .visit import Visit

if TYPE_CHECKING:
    from .protocol import Answer
    from .router import Router
    from .trip import Call
    from .types import Request, Target


class Exchange(Protocol):
    """One request to one endpoint, on a ``fresh`` connection if need be: see ``exchanges``."""

    def __call__(
        self, trip: Trip, visit: Visit, request: Request, *, fresh: bool
    ) -> Flow[Answer]: ...


def answer(
    router: Router, call: Call, exchange: Exchange, since: float | None = None
) -> Flow[ChatReply]:
    """Answer a call, or raise what stands in the way.

    It began at ``since``, on the monotonic clock; None is now.

    Raises:
        OllamaBridgeError: with everything that was tried in ``attempts``.
    """
    trip = Trip(router, call, since)
    try:
        target, found = yield from _first_answer(trip, exchange)
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
    target = trip.target
    return CallCancelled(
        seconds=trip.now() - trip.started,
        endpoint=target.endpoint.name,
        model=target.model,
        request_id=trip.call.request_id,
    )


def _first_answer(trip: Trip, exchange: Exchange) -> Flow[tuple[Target, Answer]]:
    """Go round the targets: the untried first, then those where it may be worth another try."""
    failed = Failed(trip)
    targets = trip.targets
    lap = 1
    while targets:
        for number, target in enumerate(targets, 1):
            if lap > 1 and not _may_return(trip, target):
                continue
            yield from heard(trip.router, target, trip.deadline.end)
            untried = len(targets) - number if lap == 1 else 0
            try:
                with _enter(trip, target, untried) as visit:
                    return target, (yield from _visit(trip, visit, exchange, lap))
            except OllamaBridgeError as error:
                if trip.is_alone or trip.begun or error.of_request:
                    raise
                if lap > 1 and is_refusal(error):
                    _give_back(trip, target)
                    failed.refuse(target, error)
                    continue
                failed.add(target, error)
                if not trip.left():
                    raise failed.error from None
            _hop(trip, target, failed)
        targets = yield from failed.again(lap)
        lap += 1
    raise failed.error


def _may_return(trip: Trip, target: Target) -> bool:
    """Take a token of the target's retry budget; False where none is left."""
    may = trip.router.may_repeat(target)
    if may:
        trip.past.repeat(trip.router.place(target.endpoint))
    return may


def _give_back(trip: Trip, target: Target) -> None:
    """Give back the token of a visit that was refused: no request was sent for it."""
    trip.router.did_not_repeat(target)
    trip.past.did_not_repeat(trip.router.place(target.endpoint))


def _hop(trip: Trip, target: Target, failed: Failed) -> None:
    """Tell that the call goes on elsewhere, where it does."""
    following = next((each for each in trip.targets if each not in failed), None)
    if following is not None:
        error = failed[target]
        trip.router.observe(
            CallFailedOver(
                error=error,
                to=following,
                was_sent=not is_refusal(error),
                request_id=trip.call.request_id,
            )
        )


def _visit(trip: Trip, visit: Visit, exchange: Exchange, lap: int) -> Flow[Answer]:
    if not visit.admitted or visit.is_probe:
        yield from _begin(trip, visit)
    request = trip.call.request.to(visit.target.model)
    number = 0
    while True:
        number += 1
        try:
            return (yield from _attempt(trip, visit, request, exchange))
        except OllamaBridgeError as error:
            trip.router.heed(visit.target, error)
            delay = _repeat_after(trip, visit, number, error) if lap == 1 else None
            if delay is None:
                raise
            failed = error.with_traceback(None)
        yield from _pause(trip, visit, delay, failed)
        yield from _resume(trip, visit, failed)


def _enter(trip: Trip, target: Target, untried: int) -> Visit:
    since = trip.now()
    trip.target = target
    try:
        return Visit(
            trip.router,
            target,
            trip.deadline_at(target),
            batch=trip.call.batch,
            past=trip.past,
            longest_wait=trip.longest_wait(untried),
        )
    except OllamaBridgeError as refusal:
        trip.note(target, since, refusal)
        raise


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
        if trip.is_too_late(delay, visit.deadline):
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
        if (yield Wait(visit.ticket, visit.turn_until)):
            return
        if trip.now() >= visit.turn_until:
            raise visit.give_up()
        visit.resume()


def _attempt(trip: Trip, visit: Visit, request: Request, exchange: Exchange) -> Flow[Answer]:
    if not trip.sent:
        _start(trip, visit.target)
    since = trip.now()
    try:
        found = yield from _replayed(trip, visit, request, exchange)
    except TransportFault as fault:
        error = from_fault(fault, visit.target, phase=visit.deadline.phase)
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
    policy = visit.target.endpoint.retry
    most = policy.max_retries if trip.is_alone else policy.at_once
    if number > most or not policy.repeats(error):
        return None
    # Who says "at once" each time would have us ask without any pause.
    delay = error.retry_after or policy.delay(number, trip.router.uniform)
    if trip.is_too_late(delay, visit.deadline) or not visit.may_repeat():
        return None
    trip.repeat(visit.target, number, delay, error)
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
