"""Slots: how many calls may be at one endpoint at once. There is no limit yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Ticket:
    """A place at an endpoint: ``granted`` at once, or later, when ``wake`` is called."""

    __slots__ = ("granted", "wake")

    def __init__(self, *, granted: bool) -> None:
        self.granted = granted
        self.wake: Callable[[], None] | None = None


class Limiter:
    """Counts the calls in flight and lets all of them in."""

    __slots__ = ("in_flight",)

    def __init__(self) -> None:
        self.in_flight = 0

    def enter(self) -> Ticket:
        self.in_flight += 1
        return Ticket(granted=True)

    def leave(self, ticket: Ticket) -> None:
        """Give the place back; leaving twice is leaving once."""
        if ticket.granted:
            ticket.granted = False
            self.in_flight -= 1
