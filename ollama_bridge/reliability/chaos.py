"""How the endpoints of the failover drill misbehave.

::

    flaky         each odd request of each endpoint fails, with a 503 or a reset connection
    slow          the first endpoint answers no request within its TIMEOUT; the second drips
    dying         the first endpoint is killed and comes back, again and again
    rate-limited  the first account's allowance is used up; to the second some calls are too
                  many at once

What is left to chance comes from a seed, so the n-th request of an endpoint always meets the same.
"""

from __future__ import annotations

from itertools import count, repeat
from random import Random
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from ..testing import faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .plan import Act

Trouble = Literal["503", "reset", "stall", "drip", "usage limit", "too many at once"]
Troubles: TypeAlias = "Iterator[Trouble | None]"
"""What each request in turn meets; None is a good answer."""

NAMES: Final = ("a", "b", "c")
"""The endpoints, in the order of the route."""

TIMEOUT: Final = 0.5
PATIENCE: Final = 10.0
"""Seconds that an endpoint has for an answer: where it is too slow, and elsewhere."""

_LONG: Final = 3600.0
FAULTS: Final[Mapping[Trouble, faults.Fault]] = {
    "503": faults.unavailable(),
    "reset": faults.Reset(),
    "stall": faults.Stall(_LONG),
    "drip": faults.Drip(part="body"),
    "usage limit": faults.usage_limit(),
    "too many at once": faults.rate_limited(),
}
_LIFE: Final = 1.5
_DEAD_FOR: Final = 0.5
_FIRST_DEATH: Final = (0.2, 0.4)


class Death(NamedTuple):
    """When a server is killed, and when it comes back, in seconds from the beginning."""

    at: float
    until: float


def troubles(act: Act, seed: int) -> dict[str, Troubles]:
    """Return what the requests of each endpoint meet."""
    chance = {name: Random(f"{seed} {act} {name}") for name in NAMES}  # noqa: S311  # no secrets
    first, second, last = NAMES
    match act:
        case "flaky":
            return {name: _flaky(chance[name]) for name in NAMES}
        case "slow":
            return {first: repeat("stall"), second: repeat("drip"), last: repeat(None)}
        case "dying":
            return {name: repeat(None) for name in NAMES}
        case "rate-limited":
            second_ = _now_and_then(chance[second], "too many at once")
            return {first: repeat("usage limit"), second: second_, last: repeat(None)}


def timeouts(act: Act) -> dict[str, float]:
    """Return the TIMEOUT of each endpoint: where some are slow, they must leave time for others."""
    *before, last = NAMES
    return {**dict.fromkeys(before, TIMEOUT if act == "slow" else PATIENCE), last: PATIENCE}


def deaths(act: Act, seed: int) -> Iterator[Death]:
    """Give the deaths of the first endpoint, without an end."""
    if act != "dying":
        return
    chance = Random(f"{seed} {act}")  # noqa: S311  # no secrets
    for life in count(0.0, _LIFE):
        at = life + chance.uniform(*_FIRST_DEATH)
        yield Death(at, at + _DEAD_FOR)


def _flaky(chance: Random) -> Troubles:
    """Let each odd request fail; in the long run by both in equal parts, so that none wins."""
    while True:
        kinds: list[Trouble] = ["503", "503", "reset", "reset"]
        chance.shuffle(kinds)
        for kind in kinds:
            yield kind
            yield None


def _now_and_then(chance: Random, kind: Trouble) -> Troubles:
    """Let one request of four fail, whichever."""
    while True:
        kinds: list[Trouble | None] = [kind, None, None, None]
        chance.shuffle(kinds)
        yield from kinds
