"""Snapshots of circuits as text, for any store. What is not one of ours is no letter."""

from __future__ import annotations

import json
from typing import NamedTuple

from ..core.breaker import Mode, Snapshot, State


class Letter(NamedTuple):
    """What a process tells; ``sender`` says which one, so that it knows its own again."""

    sender: str
    snapshot: Snapshot


def encode(letter: Letter) -> str:
    told = letter.snapshot
    return json.dumps([letter.sender, *told])


def decode(text: object) -> Letter | None:
    """Read a letter; None where there is none, or one of another version."""
    if not isinstance(text, str):
        return None
    try:
        sender, generation, state, seconds, leased, mode, openings, failures, error = json.loads(
            text
        )
        return Letter(
            str(sender),
            Snapshot(
                generation=int(generation),
                state=State(state),
                seconds=float(seconds),
                leased=bool(leased),
                mode=Mode(mode),
                openings=int(openings),
                failures=int(failures),
                last_error=str(error),
            ),
        )
    except (ValueError, TypeError):
        return None
