"""What a caller wants, and how far it has come: the deadline, and everything that was tried."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .deadline import Deadline
from .events import AttemptRepeated
from .types import Attempt
from .visit import Past

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import OllamaBridgeError, Phase
    from .protocol import ChatRequest
    from .router import Router
    from .types import Endpoint, Target


class Caching(NamedTuple):
    """For how many seconds an answer is kept, and for whom: nobody else may have it."""

    ttl: float
    scope: str


class Call(NamedTuple):
    """What a caller wants. Times are in seconds.

    ``using`` names a route or an endpoint, None the one that serves by default. ``models`` are
    tried in order; none means each target's own. Calls with the same ``sticky_key`` go to the same
    place where the route heeds it. Each limit is None for what the settings grant. Calls of a
    ``batch`` wait for their slot behind all others.

    Of a stream, ``timeout`` bounds the whole, ``first_token_timeout`` everything up to its first
    piece, and ``chunk_timeout`` each silence after that. It ends, truncated, before it has more
    than ``max_chunks`` pieces or ``max_bytes`` of text and thinking, in UTF-8.
    """

    request: ChatRequest
    request_id: str
    using: str | None = None
    models: tuple[str, ...] = ()
    sticky_key: str = ""
    caching: Caching | None = None
    timeout: float | None = None
    prompt_length: int = 0
    batch: bool = False
    first_token_timeout: float | None = None
    chunk_timeout: float | None = None
    max_chunks: int | None = None
    max_bytes: int | None = None


class Trip:
    """A call under way: where it may go, its deadline, and everything that was tried so far.

    A stream has ``deadline`` to begin, and ``end`` is that of the whole, if the caller set one.
    ``target`` is where it is, and ``past`` what it has done to the places where it was.
    """

    __slots__ = (
        *("attempts", "begun", "call", "deadline", "end", "now", "past", "repeats", "router"),
        *("sent", "started", "target", "targets"),
    )

    def __init__(self, router: Router, call: Call, since: float | None = None) -> None:
        self.router = router
        self.call = call
        self.now = router.clock.monotonic
        self.started = self.now() if since is None else since
        self.targets = router.targets(call)
        self.target = self.targets[0]
        self.past = Past()
        self.deadline = whole_of(call, self.targets, self.started)
        self.end = math.inf if call.timeout is None else self.started + call.timeout
        self.attempts: list[Attempt] = []
        self.repeats = 0
        self.sent = False
        self.begun = False  # whether the caller has a piece of a stream

    @property
    def is_alone(self) -> bool:
        """Whether there is one place for this call, so that all repeats are made there."""
        return len(self.targets) == 1

    def deadline_at(self, target: Target) -> Deadline:
        """Return the deadline for a target: its own limit, but never later than the call's."""
        if self.is_alone:
            return self.deadline
        own = deadline_of(self.call, target, self.started)
        # A shorter limit than others have is there to leave them time, whatever the caller grants.
        seconds = min(own.seconds, own.usual) if own.usual < self.deadline.usual else own.seconds
        return own._replace(end=min(self.deadline.end, self.now() + seconds))

    def wall(self) -> float:
        return self.router.clock.wall()

    def left(self) -> float:
        return self.deadline.left(self.now())

    def is_too_late(self, delay: float, deadline: Deadline) -> bool:
        """Tell whether an attempt after a delay would hardly begin before the end.

        Being cut off at once, it would only hide what really failed before it.
        """
        return delay + min(1.0, deadline.seconds / 10) >= deadline.left(self.now())

    def is_over(self) -> bool:
        """Tell whether the time that the caller grants the whole is over."""
        return self.now() >= self.end

    def repeat(self, target: Target, number: int, delay: float, error: OllamaBridgeError) -> None:
        """Count, and tell, that a target is going to be asked again in ``delay`` seconds."""
        self.repeats += 1
        self.router.observe(
            AttemptRepeated(
                number=number,
                most=1 + target.endpoint.retry.max_retries,
                delay=delay,
                error=error,
                request_id=self.call.request_id,
            )
        )

    def note(self, target: Target, since: float, error: OllamaBridgeError | None = None) -> None:
        attempt = Attempt(
            endpoint=target.endpoint.name,
            model=target.model,
            code=error.code if error else "",
            status=error.status if error else 200,
            seconds=self.now() - since,
        )
        self.attempts.append(attempt)

    def longest_wait(self, untried: int) -> float | None:
        """Return for how long to wait for a slot while so many other targets are untried."""
        return self.left() / (1 + untried) if untried else None


def whole_of(call: Call, targets: Sequence[Target], since: float) -> Deadline:
    """Return the deadline of a call that began at ``since``, for all its targets together.

    What the settings grant a stream to begin is for each of them; what the call does, for all.
    """
    each = [deadline_of(call, target, since) for target in targets]
    if len(each) == 1:
        return each[0]
    own = max(each)
    seconds = own.seconds
    if own.phase == "first_token" and call.first_token_timeout is None:
        of_settings = max(target.endpoint.timeout for target in targets)
        seconds = max(seconds, of_settings if call.timeout is None else call.timeout)
    usual = max(found.usual for found in each)
    return Deadline.after(seconds, now=since, usual=usual, phase=own.phase)


def deadline_of(call: Call, target: Target, since: float) -> Deadline:
    """Return the deadline of a call at one target, as if there were no other."""
    granted, usual, phase = _limits(call, target.endpoint)
    return Deadline.after(granted, now=since, usual=usual, phase=phase)


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
