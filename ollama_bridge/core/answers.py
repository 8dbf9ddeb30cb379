"""Answers that serve more than one call, where callers ask for that, see ``Caching``.

::

    asked just now by somebody? -> wait for that answer, see ``flights``
                             no -> kept? -> that is the answer
                                      no -> ask as any call does, see ``flow``
                                         -> share it with all who wait, and keep it

What is kept must serve as well as a new answer would: a failure, an answer that was cut or is not
at its end, or one that wants tools called, is for its own call only. Of a question nothing is kept
but a hash.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from . import flow
from .actions import Emit, FaultKind, TransportFault, Wait
from .diagnosis import from_fault
from .events import CallCancelled, CallFailed, CallRemembered
from .flights import Flights, Seat
from .limiter import Ticket
from .sharing import PATIENCE
from .strategies import STRATEGIES, weighted
from .trip import whole_of
from .types import ChatReply, Delta

if TYPE_CHECKING:
    from ..errors import OllamaBridgeError
    from .actions import Flow
    from .flow import Exchange
    from .router import Router
    from .trip import Caching, Call

LARGEST: Final = 500_000
"""Bytes of the largest answer that is kept: Memcached takes a million, with all that is around."""

_FORM: Final = 1  # of keys and of what is kept: with another, nothing is found
_KEYLESS: Final = frozenset(STRATEGIES.values()) - {weighted}


class Kept(NamedTuple):
    """What is kept of an answer; ``asked`` is its model as we name it.

    How many tokens it took is of no use to another call, which takes none.
    """

    text: str
    thinking: str
    model: str
    endpoint: str
    asked: str

    def __repr__(self) -> str:
        """Return nothing of the answer, for logs and error reports."""
        return f"Kept(endpoint={self.endpoint!r}, model={self.model!r})"

    @classmethod
    def of(cls, reply: ChatReply) -> Kept | None:
        """Return what is to be kept of a reply, None where it is for its own call only."""
        is_whole = reply.done_reason == "stop" and not reply.truncated
        if reply.source != "ollama" or not is_whole or reply.tool_calls or not reply.strip():
            return None
        *_, answered = reply.attempts
        return cls(str(reply), reply.thinking, reply.model, reply.endpoint, answered.model)

    @classmethod
    def decode(cls, text: object) -> Kept | None:
        """Read what was kept; None where there is nothing, or nothing of ours."""
        if not isinstance(text, str):
            return None
        try:
            found = cls(**json.loads(text))
            "".join(found).encode()  # they are all texts, of whole characters
        except (ValueError, TypeError, RecursionError):
            return None
        return found if found.text else None

    def encode(self) -> str:
        return json.dumps(self._asdict(), ensure_ascii=False)


class Lookup(Ticket):
    """A question to the store; ``text`` is what was found, as soon as it does not wait any more."""

    __slots__ = ("key", "text")

    def __init__(self, key: str, text: object = None) -> None:
        super().__init__()
        self.key = key
        self.text = text


class Shelf(Protocol):
    """Where answers are kept, see ``state``. Nothing of it blocks or raises."""

    def look(self, key: str, now: float) -> Lookup | None:
        """Begin to look for something; None where it is not worth waiting for."""

    def keep(self, key: str, text: str, seconds: float, now: float) -> None:
        """Begin to keep something for so long, as far as that is possible."""

    def leave(self) -> None:
        """End, when what is to be kept is kept."""

    def after_fork(self) -> None:
        """Begin again in a forked child."""


class Answers:
    """What a process can answer without asking: what is kept, and what is being asked just now."""

    def __init__(self, router: Router, shelf: Shelf) -> None:
        self.shelf = shelf
        self.flights: Flights[Kept] = Flights(router)

    def leave(self) -> None:
        self.shelf.leave()

    def after_fork(self) -> None:
        self.flights.after_fork()
        self.shelf.after_fork()


class _Question:
    """What a call asks, how long it can wait for somebody else's answer, and since when it does."""

    def __init__(self, router: Router, call: Call, caching: Caching) -> None:
        route = router.plan.route(call.using)
        targets = [stop.target for group in route.groups(call.models) for stop in group]
        self.router = router
        self.call = call
        self.target = targets[0]
        self.started = router.clock.monotonic()
        self.deadline = whole_of(call, targets, self.started)
        self.middle = self.started + self.deadline.seconds / 2
        sticky_key = "" if len(targets) == 1 or route.strategy in _KEYLESS else call.sticky_key
        places = [(each.endpoint.name, each.endpoint.base_url, each.model) for each in targets]
        asked = call.request._replace(stream=False, keep_alive=None)._asdict()
        parts = (_FORM, caching, call.using, sticky_key, call.max_bytes, places, asked)
        self.key = _hash(parts)
        # Whoever waits behind all others is not to be waited for.
        self.flight = f"{self.key} {call.batch}"

    def waited(self) -> float:
        return self.router.clock.monotonic() - self.started

    def is_over(self) -> bool:
        return self.router.clock.monotonic() >= self.deadline.end

    def too_late(self) -> OllamaBridgeError:
        """Return the error of a call that the one it waits for has not answered in time."""
        error = from_fault(TransportFault(FaultKind.SILENT), self.target, phase=self.deadline.phase)
        failed = CallFailed(
            repeats=0, seconds=self.waited(), error=error, request_id=self.call.request_id
        )
        self.router.observe(failed)
        return error

    def left(self) -> CallCancelled:
        return CallCancelled(
            seconds=self.waited(),
            endpoint=self.target.endpoint.name,
            model=self.target.model,
            request_id=self.call.request_id,
        )


def remembered(
    router: Router, call: Call, caching: Caching, exchange: Exchange, answers: Answers
) -> Flow[ChatReply]:
    """Answer a call as ``flow.answer`` does, or with what another call was answered.

    Raises:
        OllamaBridgeError: with everything that this call has tried in ``attempts``.
    """
    asked = _Question(router, call, caching)
    shelf = answers.shelf
    with Seat(answers.flights, asked.flight, is_streamed=call.request.stream) as seat:
        try:
            kept = yield from _known(asked, seat, shelf)
            if kept is not None:
                return (yield from _told(asked, kept))
        except GeneratorExit:  # the caller left, perhaps in the collector: no moment to report
            router.soon(router.tell, asked.left())
            raise
        reply = yield from flow.answer(router, call, exchange, asked.started)
        kept = Kept.of(reply)
        if kept is not None:
            _keep(shelf, asked.key, kept, caching.ttl, router.clock.monotonic())
        seat.share(kept)
        return reply


def _known(asked: _Question, seat: Seat[Kept], shelf: Shelf) -> Flow[Kept | None]:
    """Return the answer that somebody else has had, None for a call that is to ask itself."""
    if not seat.leads:
        yield from _followed(asked, seat)
        if seat.answer is not None or not seat.leads:
            return seat.answer
    now = asked.router.clock.monotonic()
    lookup = shelf.look(asked.key, now)
    if lookup is None:
        return None
    if lookup.waits:
        yield Wait(lookup, min(now + PATIENCE, asked.deadline.end))
    kept = Kept.decode(lookup.text)
    if kept is not None:
        seat.share(kept)  # at once: whoever reads this one's stream may take a while
    return kept


def _followed(asked: _Question, seat: Seat[Kept]) -> Flow[None]:
    """Wait until somebody else's answer is there, or it is this call's turn to ask.

    A stream has its limit for the first piece only, and goes as slowly as it is read. So who
    streams, or follows one who does, waits for half of its time, and then asks itself.

    Raises:
        Timeout: neither came in time.
    """
    yield Wait(seat.ticket, asked.middle)
    is_patient = not (asked.call.request.stream or seat.is_held_up)
    if is_patient and seat.follows:
        yield Wait(seat.ticket, asked.deadline.end)
    if seat.answer is not None:
        return
    if asked.is_over() or (is_patient and seat.follows):
        raise asked.too_late()
    seat.quit()
    seat.look()


def _told(asked: _Question, kept: Kept) -> Flow[ChatReply]:
    if asked.call.request.stream:
        yield Emit(Delta(kept.text, kept.thinking))
    reply = ChatReply(
        kept.text,
        model=kept.model,
        endpoint=kept.endpoint,
        source="cache",
        latency=asked.waited(),
        done_reason="stop",
        request_id=asked.call.request_id,
        thinking=kept.thinking,
    )
    asked.router.observe(
        CallRemembered(
            seconds=reply.latency,
            endpoint=kept.endpoint,
            model=kept.asked,
            request_id=reply.request_id,
        )
    )
    return reply


def _keep(shelf: Shelf, key: str, kept: Kept, seconds: float, now: float) -> None:
    text = kept.encode()
    if len(text.encode()) <= LARGEST:
        shelf.keep(key, text, seconds, now)


def _hash(parts: object) -> str:
    """Return what the same parts alone have in common, whatever the order of their keys."""
    plain = json.loads(json.dumps(parts, default=dict))  # mappings of any kind, with any keys
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
