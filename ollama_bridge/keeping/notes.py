"""What happens on the way of calls, noted for the thread that stores it."""

from __future__ import annotations

import time
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from ..core.events import CallAnswered, CooldownBegan, CooldownEnded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..core.events import Event

WORTH: Final = 10.0
"""Seconds from which on a cooldown is stored: a shorter one is hardly longer than a restart."""


class Note(NamedTuple):
    """What happened, and when on the wall clock: what is stored must outlive this machine."""

    event: CooldownBegan | CooldownEnded
    at: float


class Notes:
    """A listener that only takes note: inside the collector and under any lock, too.

    Args:
        counted: the endpoints whose answered calls are counted.
    """

    def __init__(self, counted: Iterable[str]) -> None:
        self._taken: SimpleQueue[Note | None] = SimpleQueue()
        self._tallies = {name: Tally() for name in counted}

    def __call__(self, event: Event) -> None:
        if isinstance(event, CallAnswered):
            if (tally := self._tallies.get(event.endpoint)) is not None:
                tally.add()
        elif (isinstance(event, CooldownEnded) and not event.is_stored) or (
            isinstance(event, CooldownBegan) and (event.is_told or event.seconds >= WORTH)
        ):
            self._taken.put(Note(event, time.time()))

    def wake(self) -> None:
        """Let who waits wait no more."""
        self._taken.put(None)

    def wait(self, seconds: float) -> list[Note]:
        """Return the notes taken since, as soon as there is one; maybe none after so long."""
        found: list[Note | None] = []
        try:
            found.append(self._taken.get(timeout=seconds))
            while True:
                found.append(self._taken.get_nowait())
        except Empty:
            return [note for note in found if note is not None]

    def answered(self) -> Mapping[str, int]:
        """Return how many calls each counted endpoint has answered since the last time."""
        return {name: tally.take() for name, tally in self._tallies.items()}


class Tally:
    """Counts without a lock: each step of ``count`` is one, whoever interrupts.

    ``take`` has to look by making a step of its own, so it is for one thread.
    """

    def __init__(self) -> None:
        self._steps = count()
        self._seen = 0

    def add(self) -> None:
        next(self._steps)

    def take(self) -> int:
        """Return the number of additions since the last time."""
        step = next(self._steps)
        new, self._seen = step - self._seen, step + 1
        return new
