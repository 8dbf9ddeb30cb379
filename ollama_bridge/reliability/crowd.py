"""Callers beside the main thread, so that it can show progress and be interrupted."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from itertools import count
from typing import TYPE_CHECKING

from ..errors import OllamaBridgeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .askers import Answer
    from .runners import Runner
    from .tally import Tally

_GLANCE = 0.1
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


class Crowd:
    """Callers who start together, and call ``each`` times or for so many ``seconds``.

    Args:
        runner: Where they live.
        ask: Makes the call with this number, from 1.
        tally: Is told of every call.
        callers: How many there are.
        each: How many calls each of them makes, one after the other.
        seconds: In place of ``each``: no call begins later, and who failed pauses up to a second.
    """

    def __init__(
        self,
        runner: Runner,
        ask: Callable[[int], Awaitable[Answer]],
        tally: Tally,
        *,
        callers: int,
        each: int = 1,
        seconds: float | None = None,
    ) -> None:
        self._runner = runner
        self._ask = ask
        self._tally = tally
        self._callers = callers
        self._each = each
        self._seconds = seconds
        self._numbers = count(1)
        self._stop = threading.Event()

    def run(self, watch: Callable[[], object]) -> None:
        """Let them call, and return when all are done; ``watch`` is called now and then.

        An exception that is no error of the bridge ends all and is raised here. After it, and
        after an interrupt, no further call begins, and those under way are left: see ``Runner``.
        What becomes of them is not counted.
        """
        begun: list[Future[None]] = []
        try:
            begun = self._runner.start(self._call, self._callers)
            under_way = set(begun)
            while under_way:
                done, under_way = wait(under_way, _GLANCE, FIRST_EXCEPTION)
                for each in done:
                    each.result()
                watch()
        finally:
            self._stop.set()
            self._runner.leave(begun)

    async def _call(self) -> None:
        until = time.monotonic() + (self._seconds or 0.0)
        made = 0
        while not self._stop.is_set() and self._wants_more(made, until):
            made += 1
            await self._one_call(until)

    def _wants_more(self, made: int, until: float) -> bool:
        if self._seconds is None:
            return made < self._each
        return not made or time.monotonic() < until

    async def _one_call(self, until: float) -> None:
        since = self._tally.begin()
        try:
            answer = await self._ask(next(self._numbers))
        except OllamaBridgeError as error:
            if not self._stop.is_set():
                self._tally.fail(error)
                await self._pause(error, until)
        else:
            if not self._stop.is_set():
                self._tally.answer(since, answer)

    async def _pause(self, error: OllamaBridgeError, until: float) -> None:
        """Wait as a decent caller does; else thousands of refusals would be all that is seen."""
        if self._seconds is not None:
            wished = max(_SHORTEST_PAUSE, error.retry_after or 0.0)
            left = max(0.0, until - time.monotonic())
            await self._runner.pause(min(wished, _LONGEST_PAUSE, left))
