"""The health report, kept for a while, so that a crowd of probes is one probe."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .core import health
from .core.actions import Wait
from .core.health import LONGEST_PROBE, HealthReport, judged
from .core.limiter import Ticket

if TYPE_CHECKING:
    from .core.actions import Flow
    from .core.routing import Router

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
        self._report: HealthReport | None = None
        self._generation = 0
        self._fresh_until = 0.0

    def report(self, *, force: bool) -> Flow[HealthReport]:
        """Return the report, with the circuits as they are now; ``force`` asks the server anew."""
        report = yield from (self._renew() if force else self._ask())
        return judged(report, self._router)

    def after_fork(self) -> None:
        """In a forked child nobody probes."""
        self._lock = threading.Lock()
        self._probing = False
        self._waiting = []

    def _ask(self) -> Flow[HealthReport]:
        """Return the kept report if it will do, else the one of a probe that others wait for."""
        ticket = self._queue()
        if ticket is not None:
            yield Wait(ticket, self._now() + 2 * LONGEST_PROBE)
        with self._lock:
            if self._report is not None and (self._is_fresh() or self._probing):
                return self._report
            self._probing = True
        try:
            return (yield from self._renew())
        finally:
            self._end_probe()

    def _queue(self) -> Ticket | None:
        """Return a ticket to wait with where somebody probes and nothing is known yet."""
        with self._lock:
            if self._report is not None or not self._probing:
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

    def _renew(self) -> Flow[HealthReport]:
        report = yield from health.check(self._router)
        seconds = self._seconds if report else min(self._seconds, LONGEST_BAD)
        with self._lock:
            self._report = report
            self._generation = self._circuit()
            self._fresh_until = self._now() + seconds
        return report

    def _is_fresh(self) -> bool:
        """Tell whether the report is young, and the circuit has not moved since."""
        return self._now() < self._fresh_until and self._generation == self._circuit()

    def _circuit(self) -> int:
        return self._router.worse(self._router.default).generation

    def _now(self) -> float:
        return self._router.clock.monotonic()
