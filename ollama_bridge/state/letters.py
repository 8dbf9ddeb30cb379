"""Snapshots of circuits as text, for any store. What is not one of ours is no letter."""

from __future__ import annotations

import json
import math
from typing import Final, NamedTuple

from ..core.breaker import Mode, Snapshot, State

_TYPES: Final = [str, int, str, float, bool, str, int, int, str]


class Letter(NamedTuple):
    """What a process tells; ``sender`` says which one, so that it knows its own again."""

    sender: str
    snapshot: Snapshot


def encode(letter: Letter) -> str:
    told = letter.snapshot
    return json.dumps([letter.sender, *told])


def decode(text: object) -> Letter | None:
    """Read a letter; None where there is none, or what no circuit can be."""
    if not isinstance(text, str):
        return None
    try:
        sender, *parts = json.loads(text)
        told = Snapshot(*parts)
        if [type(part) for part in (sender, *parts)] != _TYPES or not _is_possible(told):
            return None
        return Letter(sender, told._replace(state=State(told.state), mode=Mode(told.mode)))
    except (ValueError, TypeError, RecursionError):
        return None


def _is_possible(told: Snapshot) -> bool:
    counts = told.generation, told.openings, told.failures
    return min(counts) >= 0 and 0.0 <= told.seconds < math.inf
