"""One lock, and what may only be done after it.

Under the lock is pure code alone: never a ``yield``, an ``await``, a callback or I/O. Whoever is to
be told or woken is noted there, and told or woken by ``report``, without the lock.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .deadline import Clock
    from .events import Event, Observer
    from .limiter import Ticket


class Hub:
    """The lock of what a process knows, and those who wait for what happens under it.

    Attributes:
        is_pending: whether something is noted that ``report`` has not told yet.
    """

    def __init__(self, clock: Clock, observe: Observer) -> None:
        self.clock = clock
        self.observe = observe
        self.lock: Any = threading.RLock()
        self.is_pending = False
        self._owed: deque[Callable[[], None]] = deque()
        self._news: list[Event] = []
        self._woken: deque[Ticket] = deque()

    def soon(self, work: Callable[..., None], *args: object) -> None:
        """Do some work under the lock, now or as soon as this thread has left it.

        The collector may close an abandoned generator at any moment, also while this very thread
        is inside the lock. Its cleanup must neither wait for the lock nor see a half-made change.
        """
        if self.lock._is_owned():  # noqa: SLF001  # as threading.Condition asks
            self._owed.append(partial(work, *args))
            self.is_pending = True
            return
        with self.lock:
            work(*args)
        if self.is_pending:  # mostly not, and every call comes by here
            self.report()

    def tell(self, event: Event) -> None:
        """Take note, under the lock, of what is to be reported after it."""
        self._news.append(event)
        self.is_pending = True

    def wake(self, ticket: Ticket) -> None:
        """Take note, under the lock, that whoever waits with this ticket waits no more."""
        self._woken.append(ticket)
        self.is_pending = True

    def call(self, ticket: Ticket) -> None:
        """Call whoever waits with this ticket, or pass its slot on where nobody does any more."""
        if ticket.wake is None:  # it has not begun to wait, and will see that it need not
            return
        try:
            ticket.wake()
        except RuntimeError:  # its event loop is closed: the next one may have the slot
            with self.lock:
                following = ticket.leave(self.clock.monotonic())
                if following is not None:
                    self.wake(following)

    def report(self) -> None:
        """Do what is owed, wake who waits no more, and tell the observer what happened.

        To be called without the lock, whenever something may have changed under it.
        """
        while self.is_pending:
            self._catch_up()

    def after_fork(self) -> None:
        """In a forked child nobody holds the lock; keep what is known."""
        self.lock = threading.RLock()

    def _react(self, event: Event) -> None:
        """Do, under the lock, what an event asks for; for subclasses."""

    def _catch_up(self) -> None:
        with self.lock:
            self.is_pending = False
            while self._owed:
                self._owed.popleft()()
            news = self._news.copy()
            self._news.clear()
            for event in news:
                self._react(event)
        try:
            while (ticket := self._next_woken()) is not None:
                self.call(ticket)
        finally:
            self.is_pending = self.is_pending or bool(self._woken)  # an interrupt came between
        for event in news:
            self.observe(event)

    def _next_woken(self) -> Ticket | None:
        with self.lock:
            return self._woken.popleft() if self._woken else None
