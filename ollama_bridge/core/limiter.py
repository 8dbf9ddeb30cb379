"""Slots: how many calls may be at one model of one endpoint at once, and who is next.

Rules:

1. A slot that is given back goes to the ticket that has waited longest, in the same step: nobody
   barges in, and no slot is free while somebody waits.
2. There are two lanes: the calls of batches wait behind all others, and keep none of them out.
3. Whoever leaves, for whatever reason, calls ``Ticket.leave``. A ticket that was granted in the
   same moment passes its slot on.
4. A call that cannot have its turn in time is refused at once.

The caller holds the lock, and passes ``now`` from a monotonic clock, in seconds. Who was granted a
slot is woken by the caller, after the lock.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The weight of the last time in what is known of a pace: more where it was shorter, since a call
# that had to load its model says little about the next.
_LONGER, _SHORTER = 0.2, 0.5


class Pace:
    """How many seconds something takes of late; None before the first time."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds: float | None = None

    def learn(self, seconds: float) -> None:
        known = seconds if self.seconds is None else self.seconds
        weight = _SHORTER if seconds < known else _LONGER
        self.seconds = known + weight * (seconds - known)


class Ticket:
    """A place in the queue: ``granted`` at once, or it ``waits``, until ``wake`` is called.

    Whoever waits sets ``wake`` first, and looks at ``waits`` then: it may be over already. A ticket
    that neither waits nor is granted was sent away. ``wake`` raises ``RuntimeError`` where nobody
    waits for it any more: an event loop is closed, say.
    """

    __slots__ = ("_limiter", "granted", "waits", "wake")

    def __init__(self, limiter: Limiter | None = None) -> None:
        self._limiter = limiter
        self.granted = False
        self.waits = False
        self.wake: Callable[[], None] | None = None

    def leave(self, now: float) -> Ticket | None:
        """Give the slot or the place back; leaving twice is leaving once.

        Returns:
            The ticket that has the slot now, and is to be woken.
        """
        return None if self._limiter is None else self._limiter.leave(self, now)


class Limiter:
    """``limit`` slots; at most ``most_waiting`` tickets wait for one. None means no limit."""

    __slots__ = ("_batch", "_held", "_limit", "_most_waiting", "_pace", "_queue")

    def __init__(self, limit: int | None = None, most_waiting: int | None = None) -> None:
        self._limit = limit
        self._most_waiting = most_waiting
        self._held: dict[Ticket, float] = {}  # since when, oldest first
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self._batch: OrderedDict[Ticket, None] = OrderedDict()
        self._pace = Pace()  # at which slots are given back

    @property
    def in_flight(self) -> int:
        return len(self._held)

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._batch)

    @property
    def load(self) -> int:
        """How many calls there are, in flight and waiting."""
        return len(self._held) + len(self._queue) + len(self._batch)

    def enter(self, now: float, left: float, *, batch: bool = False) -> Ticket | None:
        """Return a ticket to a caller who has ``left`` seconds, None where it waits in vain."""
        ticket = Ticket(self)
        if self._limit is None or len(self._held) < self._limit:
            ticket.granted = True
            self._held[ticket] = now
            return ticket
        is_full = self._most_waiting is not None and self._ahead(batch=batch) >= self._most_waiting
        if is_full or (self.delay(now, batch=batch) or 0.0) > left:
            return None
        ticket.waits = True
        (self._batch if batch else self._queue)[ticket] = None
        return ticket

    def leave(self, ticket: Ticket, now: float) -> Ticket | None:
        """Do what ``Ticket.leave`` says."""
        since = self._held.pop(ticket, None)
        if since is None:
            ticket.waits = False
            self._queue.pop(ticket, None)
            self._batch.pop(ticket, None)
            return None
        ticket.granted = False
        if self._limit is None:
            return None
        self._pace.learn(now - since)
        return self._next(now)

    def dismiss(self) -> list[Ticket]:
        """Send away all who wait, none of them granted; returns those who are to be woken."""
        sent_away = [*self._queue, *self._batch]
        for ticket in sent_away:
            ticket.waits = False
        self._queue.clear()
        self._batch.clear()
        return sent_away

    def delay(self, now: float, *, batch: bool = False) -> float | None:
        """Return the seconds until a newcomer's turn, or None where nothing is known yet.

        Each slot is taken to be held for as long as slots are held of late, and a call that takes
        longer to end any moment: rather too short than too long, since calls are refused for it.
        """
        if self._limit is None or len(self._held) < self._limit:
            return 0.0
        seconds = self._pace.seconds
        if seconds is None:
            return None
        rounds, place = divmod(self._ahead(batch=batch), self._limit)
        since = next(islice(self._held.values(), place, None))
        return max(0.0, since + seconds - now) + rounds * seconds

    def retry_after(self, now: float, *, batch: bool = False) -> float | None:
        """Return when one who was refused may find a slot, in seconds; None where nobody knows."""
        return self.delay(now, batch=batch) or self._pace.seconds

    def _ahead(self, *, batch: bool) -> int:
        return self.waiting if batch else len(self._queue)

    def _next(self, now: float) -> Ticket | None:
        lane = self._queue or self._batch
        if not lane:
            return None
        ticket, _ = lane.popitem(last=False)
        ticket.granted, ticket.waits = True, False
        self._held[ticket] = now
        return ticket
