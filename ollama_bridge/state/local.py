"""Circuit state that stays in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..core.limiter import Ticket


class LocalHome:
    """Nothing is shared, so there is never anything to hear or to tell."""

    is_shared: Final = False

    def hear(self, now: float, *, at_once: bool = False) -> Ticket | None:  # noqa: ARG002
        return None

    def claim(self, now: float) -> Ticket | None:  # noqa: ARG002
        return None

    def hears(self, now: float) -> bool:  # noqa: ARG002
        return False

    def wake(self) -> None:
        """Do nothing: every circuit is where it is used."""
