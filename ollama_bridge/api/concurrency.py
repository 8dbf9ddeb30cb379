"""How many calls of one user, or one address, may be under way: ``MAX_CALLS_PER_USER``."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.limiter import Pace
from .errors import TooManyCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CallsByUser:
    """Calls under way in this process. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began: dict[str, list[float]] = {}  # the oldest first
        self._pace = Pace()

    @contextmanager
    def one(self, who: str, most: int | None) -> Iterator[None]:
        """Count a call of somebody as long as the block lasts; ``most`` is None for no limit.

        Raises:
            TooManyCalls: so many are under way; with the seconds to wait, as far as is known.
        """
        began = self._begin(who, most)
        try:
            yield
        finally:
            self._end(who, began)

    def after_fork(self) -> None:
        """In a forked child no call is under way, and nobody holds the lock."""
        self._lock = threading.Lock()
        self._began = {}

    def _begin(self, who: str, most: int | None) -> float:
        with self._lock:
            now = self._clock()
            calls = self._began.get(who, [])
            if most is not None and len(calls) >= most:
                raise TooManyCalls(wait=self._wait(now - calls[0]))
            self._began.setdefault(who, []).append(now)
            return now

    def _end(self, who: str, began: float) -> None:
        with self._lock:
            calls = self._began.get(who, [])
            if began in calls:  # a forked child may end a call of its parent's
                calls.remove(began)
            if not calls:
                self._began.pop(who, None)
            self._pace.learn(self._clock() - began)

    def _wait(self, age: float) -> float | None:
        seconds = self._pace.seconds
        return None if seconds is None else max(0.0, seconds - age)


calls_by_user = CallsByUser()

if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=calls_by_user.after_fork)
