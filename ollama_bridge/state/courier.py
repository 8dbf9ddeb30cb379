"""What asks a store for calls, so that none of them waits for it longer than it likes.

One daemon thread does all that may block. A store that is slow, down or back fails nobody: the
process goes on without it, and asks again after 1, 2, 4 … 30 seconds.
"""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STUCK = 1.0  # seconds after which a store that does not answer counts as one that is down
_FAREWELL = 0.5  # seconds for which the end waits for what is still to be done
_LONGEST_REST = 30.0
_IDLE = 5.0  # seconds after which the thread's connections are closed
_EVERY_MINUTE = 60.0

T = TypeVar("T")

logger = logging.getLogger("ollama_bridge.state")


class Courier(ABC, Generic[T]):
    """Goes to a store and back, in a thread of its own. Thread-safe; nothing in it raises."""

    _name: ClassVar[str]  # of the thread
    _complaint: ClassVar[str]  # with a place for the error's class
    _relief: ClassVar[str]

    _asked: SimpleQueue[T | None]
    _lock: threading.Lock
    _thread: threading.Thread | None
    _busy_since: float | None

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begin_again()
        self._failures = 0
        self._deaf_until = 0.0
        self._complained_at = float("-inf")

    def leave(self) -> None:
        """End the thread, when it has done what was asked."""
        with self._lock:
            thread = self._thread
            if thread is None:
                self._deaf_until = math.inf  # it shall not begin any more
        if thread is not None and thread.is_alive():
            self._asked.put(None)
            if thread is not threading.current_thread():
                thread.join(_FAREWELL)

    def after_fork(self) -> None:
        """In a forked child there is no thread; it is started again."""
        self._begin_again()

    def hears(self, now: float, patience: float = _STUCK) -> bool:
        """Tell whether the store answers within so many seconds, as far as is known."""
        since = self._busy_since
        return now >= self._deaf_until and (since is None or now < since + patience)

    @abstractmethod
    def _go(self, asked: Sequence[T | None]) -> None:
        """Ask the store; it may block, and raise anything."""

    @abstractmethod
    def _tell(self, asked: Sequence[T | None]) -> None:
        """Tell who waits that it is over, whatever came of it."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Close what the thread has opened."""

    def _is_due(self, asked: Sequence[T | None]) -> bool:
        """Tell whether there is anything to do, also where nobody has asked."""
        return bool(asked)

    def _begin_again(self) -> None:
        self._lock = threading.Lock()
        self._asked = SimpleQueue()
        self._thread = None
        self._busy_since = None

    def _is_running(self) -> bool:
        """Tell whether the thread runs, or start it; False where that is not possible."""
        if self._thread is not None:
            return True
        with self._lock:
            return self._thread is not None or (self._deaf_until < math.inf and self._start())

    def _start(self) -> bool:
        """Start the thread; tell whether that was possible."""
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            self._fail(error)
            self._deaf_until = math.inf
            return False
        return True

    def _run(self) -> None:
        is_open = True
        while is_open:
            asked = self._wait()
            is_open = None not in asked
            self._woken()
            if self._monotonic() >= self._deaf_until and self._is_due(asked):
                self._try(asked)
            self._tell(asked)
        self._deaf_until = math.inf  # whose call outlives the engine goes on alone
        self._close()

    def _woken(self) -> None:
        """Take note that what is asked from here on needs another journey."""

    def _wait(self) -> list[T | None]:
        """Return what was asked since, one thing at least unless it is time to try again."""
        rest = self._deaf_until - self._monotonic()
        asked: list[T | None] = []
        try:
            asked.append(self._asked.get(timeout=rest if rest > 0 else _IDLE))
        except Empty:
            if rest <= 0:
                self._close()
                asked.append(self._asked.get())
        while not self._asked.empty():
            asked.append(self._asked.get())
        return asked

    def _try(self, asked: Sequence[T | None]) -> None:
        self._busy_since = self._monotonic()
        try:
            self._go(asked)
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
            logger.log(level, self._complaint, type(error).__name__, extra=_NOTHING)

    def _recover(self) -> None:
        if self._failures:
            logger.info(self._relief, extra=_NOTHING)
            self._complained_at = float("-inf")
        self._failures = 0


_NOTHING: Final = {"endpoint": "", "model": "", "code": "", "request_id": ""}
