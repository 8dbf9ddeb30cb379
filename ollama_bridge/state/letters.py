"""Snapshots of circuits as text, for any store. What is not one of ours is no letter."""

from __future__ import annotations

import json
import math
from typing import Final, NamedTuple

from ..core.breaker import Mode, Snapshot, State

_TYPES: Final = [str, int, str, float, bool, str, int, int, str, int]
_LATEST: Final = 2**40
_FRESH: Final = 60


class Letter(NamedTuple):
    """What a process tells; ``sender`` says which one, so that it knows its own again.

    ``told_at`` is in whole seconds since the epoch, by the sender's clock.
    """

    sender: str
    snapshot: Snapshot
    told_at: int

    def aged(self, wall: float) -> Snapshot:
        """Return what it means now: of the time that it speaks of, some has passed.

        Clocks of two machines differ by seconds, and what circuits speak of are seconds. So only
        what is older than a minute, such as the cooldown of an account, is taken to be old.
        """
        age = wall - self.told_at
        if age <= _FRESH:
            return self.snapshot
        return self.snapshot._replace(seconds=max(0.0, self.snapshot.seconds - age))


def encode(letter: Letter) -> str:
    told = letter.snapshot
    return json.dumps([letter.sender, *told, letter.told_at])


def decode(text: object) -> Letter | None:
    """Read a letter; None where there is none, or what no circuit can be."""
    if not isinstance(text, str):
        return None
    try:
        sender, *parts, told_at = json.loads(text)
        told = Snapshot(*parts)
        types = [type(part) for part in (sender, *parts, told_at)]
        if types != _TYPES or not _is_possible(told) or not 0 <= told_at < _LATEST:
            return None
        told = told._replace(state=State(told.state), mode=Mode(told.mode))
        return Letter(sender, told, told_at)
    except (ValueError, TypeError, RecursionError):
        return None


def _is_possible(told: Snapshot) -> bool:
    counts = told.generation, told.openings, told.failures
    return min(counts) >= 0 and 0.0 <= told.seconds < math.inf
