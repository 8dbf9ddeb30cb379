"""The health report, kept for a while, so that a crowd of probes is one probe."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .core import health
from .core.actions import Wait
from .core.health import judged, longest
from .core.limiter import Ticket
from .core.sharing import heard

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .core.actions import Flow
    from .core.health import HealthReport, Seen
    from .core.router import Router

# A bad report is asked for anew sooner, so that a recovery is seen soon.
LONGEST_BAD = 5.0


class HealthKeeper:
    """Answers from the last report while it is fresh: young, and of the circuit's generation.

    While one caller probes, others get the stale report; those who find none wait for the probe.
    Thread-safe: each caller's driver performs a flow of its own.
    """

    def __init__(self, router: Router, cache_seconds: float) -> None:
        self._router = router
        self._seconds = cache_seconds
        self._lock = threading.Lock()
        self._probing = False
        self._waiting: list[Ticket] = []
        self._seen: Mapping[str, Seen] | None = None
        self._generation = 0
        self._fresh_until = 0.0

    def report(self, *, force: bool) -> Flow[HealthReport]:
        """Return the report, with the circuits as they are now; ``force`` asks the server anew."""
        yield from heard(self._router)
        seen = yield from (self._renew() if force else self._ask())
        return judged(seen, self._router)

    def after_fork(self) -> None:
        """In a forked child nobody probes."""
        self._lock = threading.Lock()
        self._probing = False
        self._waiting = []

    def _ask(self) -> Flow[Mapping[str, Seen]]:
        """Return the kept report if it will do, else the one of a probe that others wait for."""
        ticket = self._queue()
        if ticket is not None:
            yield Wait(ticket, self._now() + 2 * longest(self._router))
        with self._lock:
            if self._seen is not None and (self._is_fresh() or self._probing):
                return self._seen
            self._probing = True
        try:
            return (yield from self._renew())
        finally:
            self._end_probe()

    def _queue(self) -> Ticket | None:
        """Return a ticket to wait with where somebody probes and nothing is known yet."""
        with self._lock:
            if self._seen is not None or not self._probing:
                return None
            ticket = Ticket()
            ticket.waits = True
            self._waiting.append(ticket)
            return ticket

    def _end_probe(self) -> None:
        with self._lock:
            self._probing = False
            woken, self._waiting = self._waiting, []
        for ticket in woken:
            ticket.waits = False
            self._router.call(ticket)

    def _renew(self) -> Flow[Mapping[str, Seen]]:
        seen: Mapping[str, Seen] = yield from health.check(self._router)
        is_good = judged(seen, self._router).status == "healthy"
        seconds = self._seconds if is_good else min(self._seconds, LONGEST_BAD)
        with self._lock:
            self._seen = seen
            self._generation = self._circuit()
            self._fresh_until = self._now() + seconds
        return seen

    def _is_fresh(self) -> bool:
        """Tell whether the report is young, and the circuit has not moved since."""
        return self._now() < self._fresh_until and self._generation == self._circuit()

    def _circuit(self) -> int:
        return sum(self._router.sharing.generations().values())

    def _now(self) -> float:
        return self._router.clock.monotonic()
