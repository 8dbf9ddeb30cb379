"""Callers in threads of their own, so that the main thread can show progress and be interrupted."""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from itertools import count
from typing import TYPE_CHECKING

from ..errors import OllamaBridgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.types import ChatReply
    from .tally import Tally

_GLANCE = 0.1
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


class Crowd:
    """Callers who start together, and call ``each`` times or for so many ``seconds``.

    Args:
        ask: Makes the call with this number, from 1.
        tally: Is told of every call.
        callers: How many there are.
        each: How many calls each of them makes, one after the other.
        seconds: In place of ``each``: no call begins later, and who failed pauses up to a second.
    """

    def __init__(
        self,
        ask: Callable[[int], ChatReply],
        tally: Tally,
        *,
        callers: int,
        each: int = 1,
        seconds: float | None = None,
    ) -> None:
        self._ask = ask
        self._tally = tally
        self._callers = callers
        self._each = each
        self._seconds = seconds
        self._numbers = count(1)
        self._begin = threading.Event()
        self._stop = threading.Event()
        self._until = 0.0
        self._crash: Exception | None = None

    def run(self, watch: Callable[[], object]) -> None:
        """Let them call, and return when all are done; ``watch`` is called now and then.

        An exception that is no error of the bridge ends all and is raised here. After an interrupt
        no further call begins, and those under way are not waited for: their threads are daemons.
        """
        threads = [
            threading.Thread(target=copy_context().run, args=(self._call,), daemon=True)
            for _ in range(self._callers)
        ]
        try:
            for thread in threads:
                thread.start()
            self._until = time.monotonic() + (self._seconds or 0.0)
            self._begin.set()
            for thread in threads:
                while thread.is_alive():
                    thread.join(_GLANCE)
                    watch()
        finally:
            self._stop.set()
            self._begin.set()
        if self._crash is not None:
            raise self._crash

    def _call(self) -> None:
        self._begin.wait()
        made = 0
        while not self._stop.is_set() and self._wants_more(made):
            made += 1
            try:
                self._one_call()
            except Exception as crash:  # noqa: BLE001  # raised again by ``run``
                self._crash = crash
                self._stop.set()

    def _wants_more(self, made: int) -> bool:
        if self._seconds is None:
            return made < self._each
        return not made or time.monotonic() < self._until

    def _one_call(self) -> None:
        since = self._tally.begin()
        try:
            reply = self._ask(next(self._numbers))
        except OllamaBridgeError as error:
            self._tally.fail(error)
            self._pause(error)
        else:
            self._tally.answer(since, reply)

    def _pause(self, error: OllamaBridgeError) -> None:
        """Wait as a decent caller does; else thousands of refusals would be all that is seen."""
        if self._seconds is not None:
            wished = max(_SHORTEST_PAUSE, error.retry_after or 0.0)
            left = max(0.0, self._until - time.monotonic())
            self._stop.wait(min(wished, _LONGEST_PAUSE, left))
