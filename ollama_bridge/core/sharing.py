"""What processes that share circuits tell each other.

Every move of a circuit is a generation of it, and a generation is told once: whose claim comes
second adopts the first. So there is one opening and one probe for all processes, on any store that
can add a key once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from .actions import Wait
from .breaker import Mode, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .actions import Flow
    from .breaker import Breaker, Snapshot
    from .knowledge import Knowledge
    from .limiter import Ticket
    from .types import Target


PATIENCE = 0.05
"""The most seconds that anybody waits for what other processes know."""


class Home(Protocol):
    """Where circuits are kept for all processes; see ``state``. Nothing of it blocks or raises."""

    @property
    def is_shared(self) -> bool:
        """Whether there are others to be told."""

    def hear(self, now: float, *, at_once: bool = False) -> Ticket | None:
        """Begin to read what others tell, where that is due, or ``at_once``.

        Returns:
            What to wait with until it is known; None where there is nothing to wait for.
        """

    def claim(self, now: float) -> Ticket | None:
        """Begin to tell what has just moved here, and to read who was first; as ``hear``."""

    def hears(self, now: float) -> bool:
        """Tell whether the store answers, as far as is known: else everybody decides alone."""

    def wake(self) -> None:
        """Tell soon what has moved here. Under any lock, in any thread, at any moment."""


class Sharing:
    """The circuits of a process, for a home that shares them. Thread-safe by the router's lock.

    Attributes:
        untold: the circuits that moved here since others were told, by name.
    """

    def __init__(self, router: Knowledge) -> None:
        self.untold: dict[str, Breaker] = {}
        self._wills: dict[str, Callable[[Breaker], object]] = {}
        self._router = router

    def moved(self, circuit: Breaker) -> None:
        """Take note, under the lock, that others are to be told."""
        self.untold[circuit.name] = circuit
        self._router.is_pending = True
        self._wills.pop(circuit.name, None)  # what has moved since is later than anybody's will

    def insist(self, circuit: Breaker, will: Callable[[Breaker], object]) -> None:
        """Take note, under the lock, of what was just done to a circuit on somebody's will.

        It is done again where another process moved the circuit in the same moment.
        """
        if circuit.name in self.untold:
            self._wills[circuit.name] = will

    def is_claim(self, circuits: Iterable[Breaker]) -> bool:
        """Tell whether one of these is being probed from here, and others do not know yet."""
        return any(
            found.name in self.untold and found.state is State.HALF_OPEN for found in circuits
        )

    def generations(self) -> Mapping[str, int]:
        """Return the generation of every circuit, by name."""
        with self._router.lock:
            return {found.name: found.generation for found in self._router.circuits()}

    def snapshot(self, name: str) -> Snapshot | None:
        """Return how a circuit is now, None where it was forgotten."""
        with self._router.lock:
            found = self._router.circuit(name)
            return None if found is None else found.snapshot(self._now())

    def owed(self) -> Mapping[str, Snapshot]:
        """Return what others do not know yet."""
        with self._router.lock:
            return {name: found.snapshot(self._now()) for name, found in self.untold.items()}

    def told(self, name: str, generation: int) -> None:
        """Take note that others know this generation of a circuit."""
        with self._router.lock:
            found = self.untold.get(name)
            if found is not None and found.generation <= generation:
                del self.untold[name]
                self._wills.pop(name, None)

    def adopt(self, name: str, told: Snapshot, *, instead: bool = False) -> None:
        """Be as another process tells, where that is news.

        ``instead`` of the same generation that was made here, since the other was first.
        """
        with self._router.lock:
            found = self._router.circuit(name)
            if found is None or told.generation < found.generation + (not instead):
                return
            before = found.state, found.mode
            self.untold.pop(name, None)
            will = self._wills.pop(name, None)
            found.adopt(told, self._now())
            if will is not None:
                will(found)
                self.insist(found, will)
            if (found.state, found.mode) != before:
                self._router.tell(found.followed(self._now()))
        self._router.report()

    def call(self, ticket: Ticket) -> None:
        """Call whoever waits with this ticket."""
        ticket.granted, ticket.waits = True, False
        self._router.call(ticket)

    def _now(self) -> float:
        return self._router.clock.monotonic()


def heard(router: Knowledge, target: Target | None = None, end: float = math.inf) -> Flow[None]:
    """Wait, but not for long, for what other processes know, where it is time to ask them.

    It is for the first call of a ``target``, whose circuit they may know. A call waits until its
    ``end`` at most.
    """
    ticket = router.hear(target)
    if ticket is not None:
        yield Wait(ticket, min(router.clock.monotonic() + PATIENCE, end))


def wanted(mode: Mode, now: float) -> Callable[[Breaker], None]:
    """Return the will that a circuit be in this mode; ``AUTO`` resets it."""

    def will(circuit: Breaker) -> None:
        if mode is Mode.AUTO:
            circuit.reset(now)
        else:
            circuit.set_mode(mode)

    return will
