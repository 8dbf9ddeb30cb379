"""The health report, kept for a while, so that a crowd of probes is one probe."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .core.health import LONGEST_PROBE, HealthReport, judged

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core.routing import Router

# A bad report is asked for anew sooner, so that a recovery is seen soon.
LONGEST_BAD = 5.0


class HealthKeeper:
    """Answers from the last report while it is fresh: young, and of the circuit's generation.

    While one caller probes, others get the stale report; those who find none wait for the probe.
    Thread-safe.
    """

    def __init__(
        self, router: Router, probe: Callable[[], HealthReport], cache_seconds: float
    ) -> None:
        self._router = router
        self._probe = probe
        self._seconds = cache_seconds
        self._changed = threading.Condition()
        self._probing = False
        self._report: HealthReport | None = None
        self._generation = 0
        self._fresh_until = 0.0

    def report(self, *, force: bool) -> HealthReport:
        """Return the report, with the circuits as they are now; ``force`` asks the server anew."""
        report = self._renew() if force else self._ask()
        return judged(report, self._router)

    def after_fork(self) -> None:
        """In a forked child nobody probes."""
        self._changed = threading.Condition()
        self._probing = False

    def _ask(self) -> HealthReport:
        """Return the kept report if it will do, else the one of a probe that others wait for."""
        with self._changed:
            if self._report is None and self._probing:
                self._changed.wait_for(lambda: not self._probing, 2 * LONGEST_PROBE)
            if self._report is not None and (self._is_fresh() or self._probing):
                return self._report
            self._probing = True
        try:
            return self._renew()
        finally:
            with self._changed:
                self._probing = False
                self._changed.notify_all()

    def _renew(self) -> HealthReport:
        report = self._probe()
        seconds = self._seconds if report else min(self._seconds, LONGEST_BAD)
        with self._changed:
            self._report = report
            self._generation = self._circuit()
            self._fresh_until = self._router.clock.monotonic() + seconds
        return report

    def _is_fresh(self) -> bool:
        """Tell whether the report is young, and the circuit has not moved since."""
        is_young = self._router.clock.monotonic() < self._fresh_until
        return is_young and self._generation == self._circuit()

    def _circuit(self) -> int:
        return self._router.worse(self._router.default).generation
