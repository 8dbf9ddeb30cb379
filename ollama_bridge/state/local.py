"""Circuit state that stays in this process."""

from __future__ import annotations


class LocalHome:
    """Nothing is shared, so there is never anything to read or flush."""

    def is_due(self, now: float) -> bool:  # noqa: ARG002  # the interface of every home
        return False

    def exchange(self) -> None:
        """Do nothing: every circuit is where it is used."""
