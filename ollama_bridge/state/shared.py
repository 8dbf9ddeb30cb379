"""Circuit state that all processes share, through a store that any of them may lose at any time.

One daemon thread for each engine asks the store, so that no call ever waits for it longer than the
core's patience. A store that is slow, down, flushed or back fails no call: the process goes on with
what it knows, asks again after 1, 2, 4 … 30 seconds, and tells then what the others have missed.
"""

from __future__ import annotations

import logging
import math
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from ..core.limiter import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.sharing import Sharing
    from .exchange import Exchange

_STUCK = 1.0  # seconds after which a store that does not answer counts as one that is down
_FAREWELL = 0.5  # seconds for which the end waits for what is still to be told
_LONGEST_REST = 30.0
_IDLE = 5.0  # seconds after which the thread's connections are closed
_EVERY_MINUTE = 60.0

logger = logging.getLogger("ollama_bridge.state")


class SharedHome:
    """Hears and tells, in a thread of its own. Thread-safe; nothing in it raises.

    Args:
        interval: seconds between two readings, as long as calls are made.
    """

    is_shared: Final = True

    _asked: SimpleQueue[Ticket | None]
    _thread: threading.Thread | None
    _known: threading.Event
    _busy_since: float | None
    _awake: bool

    def __init__(self, interval: float, monotonic: Callable[[], float]) -> None:
        self._interval = interval
        self._monotonic = monotonic
        self._next = 0.0
        self._begin_again()
        self._failures = 0
        self._deaf_until = 0.0
        self._complained_at = float("-inf")

    def join(self, sharing: Sharing, exchange: Exchange, hang_up: Callable[[], None]) -> None:
        """Begin to hear what the others know; ``wait`` until it is known."""
        self._sharing = sharing
        self._exchange = exchange
        self._hang_up = hang_up
        ticket = self._ask()
        ticket.wake = self._known.set
        self._next = self._monotonic() + self._interval
        self._thread = threading.Thread(target=self._run, name=__name__, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self._fail(error)
            self._deaf_until = math.inf
            self._known.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is known what the others know, but not longer than this."""
        self._known.wait(seconds)

    def leave(self) -> None:
        """End the thread, when it has told what is still owed."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._asked.put(None)
            if thread is not threading.current_thread():
                thread.join(_FAREWELL)

    def after_fork(self) -> None:
        """In a forked child there is no thread; it joins again."""
        self._begin_again()

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

    def hears(self, now: float) -> bool:
        since = self._busy_since
        return now >= self._deaf_until and (since is None or now < since + _STUCK)

    def wake(self) -> None:
        if not self._awake:  # no lock: this may be the collector, inside any of them
            self._awake = True
            self._asked.put(Ticket())

    def _begin_again(self) -> None:
        self._lock = threading.Lock()
        self._asked = SimpleQueue()
        self._thread = None
        self._known = threading.Event()
        self._busy_since = None
        self._awake = False

    def _ask(self) -> Ticket:
        ticket = Ticket()
        ticket.waits = True
        self._asked.put(ticket)
        return ticket

    def _run(self) -> None:
        is_open = True
        while is_open:
            tickets = self._wait()
            is_open = None not in tickets
            self._awake = False
            if self._monotonic() >= self._deaf_until and (tickets or self._sharing.untold):
                self._try()
            for ticket in tickets:
                if ticket is not None:
                    self._sharing.call(ticket)
        self._deaf_until = math.inf  # whose call outlives the engine goes on alone
        self._close()

    def _wait(self) -> list[Ticket | None]:
        """Return what was asked since, one thing at least unless it is time to try again."""
        rest = self._deaf_until - self._monotonic()
        tickets: list[Ticket | None] = []
        try:
            tickets.append(self._asked.get(timeout=rest if rest > 0 else _IDLE))
        except Empty:
            if rest <= 0:
                self._close()
                tickets.append(self._asked.get())
        while not self._asked.empty():
            tickets.append(self._asked.get())
        return tickets

    def _try(self) -> None:
        self._busy_since = self._monotonic()
        try:
            self._exchange.run()
        except Exception as error:  # noqa: BLE001  # whatever a store does, calls go on
            self._fail(error)
        else:
            self._recover()
        finally:
            self._busy_since = None

    def _close(self) -> None:
        try:
            self._hang_up()
        except Exception as error:  # noqa: BLE001  # it was to be thrown away anyway
            logger.debug("A connection did not close: %s", type(error).__name__, extra=_NOTHING)

    def _fail(self, error: Exception) -> None:
        now = self._monotonic()
        self._deaf_until = now + min(_LONGEST_REST, 2.0 ** min(self._failures, 10))
        self._failures += 1
        if now >= self._complained_at + _EVERY_MINUTE:
            self._complained_at = now
            # Tests that forbid the database, where a cache may be, need no alarm.
            level = logging.DEBUG if isinstance(error, RuntimeError) else logging.WARNING
            line = "Cannot share circuits with other processes, going on alone: %s"
            logger.log(level, line, type(error).__name__, extra=_NOTHING)

    def _recover(self) -> None:
        if self._failures:
            logger.info("Circuits are shared with other processes again", extra=_NOTHING)
            self._complained_at = float("-inf")
        self._failures = 0


_NOTHING: Final = {"endpoint": "", "model": "", "code": "", "request_id": ""}
