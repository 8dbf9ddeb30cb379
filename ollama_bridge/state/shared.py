"""Circuit state that all processes share, through a store that any of them may lose at any time.

A store that is slow, down, flushed or back fails no call: the process goes on with what it knows,
and tells the others what they have missed as soon as they can be told, see ``courier``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar, Final

from ..core.limiter import Ticket
from .courier import Courier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.sharing import Sharing
    from .exchange import Exchange


class SharedHome(Courier[Ticket]):
    """Hears and tells, in a thread of its own. Thread-safe; nothing in it raises.

    Args:
        interval: seconds between two readings, as long as calls are made.
    """

    is_shared: Final = True

    _name: ClassVar = __name__
    _complaint: ClassVar = "Cannot share circuits with other processes, going on alone: %s"
    _relief: ClassVar = "Circuits are shared with other processes again"

    _known: threading.Event
    _awake: bool

    def __init__(self, interval: float, monotonic: Callable[[], float]) -> None:
        super().__init__(monotonic)
        self._interval = interval
        self._next = 0.0

    def join(self, sharing: Sharing, exchange: Exchange, hang_up: Callable[[], None]) -> None:
        """Begin to hear what the others know; ``wait`` until it is known."""
        self._sharing = sharing
        self._exchange = exchange
        self._close_all = hang_up
        ticket = self._ask()
        ticket.wake = self._known.set
        self._next = self._monotonic() + self._interval
        if not self._start():
            self._known.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is known what the others know, but not longer than this."""
        self._known.wait(seconds)

    def hear(self, now: float, *, at_once: bool = False) -> Ticket | None:
        if now < self._next and not at_once:
            return None
        with self._lock:
            is_due = now >= self._next and self._busy_since is None
            if not (is_due or at_once) or not self.hears(now):
                return None
            self._next = now + self._interval
        return self._ask()

    def claim(self, now: float) -> Ticket | None:
        return self._ask() if self.hears(now) else None

    def wake(self) -> None:
        if not self._awake:  # no lock: this may be the collector, inside any of them
            self._awake = True
            self._asked.put(Ticket())

    def _begin_again(self) -> None:
        super()._begin_again()
        self._known = threading.Event()
        self._awake = False

    def _ask(self) -> Ticket:
        ticket = Ticket()
        ticket.waits = True
        self._asked.put(ticket)
        return ticket

    def _woken(self) -> None:
        self._awake = False

    def _is_due(self, asked: Sequence[Ticket | None]) -> bool:
        return bool(asked or self._sharing.untold)

    def _go(self, asked: Sequence[Ticket | None]) -> None:  # noqa: ARG002  # all want the same
        self._exchange.run()

    def _tell(self, asked: Sequence[Ticket | None]) -> None:
        for ticket in asked:
            if ticket is not None:
                self._sharing.call(ticket)

    def _hang_up(self) -> None:
        self._close_all()
