"""In which order a call tries the places that can serve it: small, named, pure.

A strategy takes candidates, all of them ready, and returns them all, the best first. It is one
function, and one line in ``STRATEGIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from .names import mark_of

if TYPE_CHECKING:
    from .types import Target


class Candidate(NamedTuple):
    """A place where a call may go, and what is known of it at this moment.

    Attributes:
        target: the endpoint, and the model there.
        weight: from the settings, more than 0.
        ramp: 1, but after its circuit has closed it rises from 0.25 to 1 in 30 seconds.
        load: calls in flight there, and waiting, of this process.
        is_warm: whether the model is in the server's memory, as far as is known.
        price: of a million tokens of the prompt and as many of the answer.
    """

    target: Target
    weight: float
    ramp: float
    load: int
    is_warm: bool
    price: float


class Draw(NamedTuple):
    """What a strategy may decide by besides.

    Attributes:
        random: a new number in [0, 1) with each call.
        turn: how many calls took this route before.
        key: whoever shall come to the same place again, "" for nobody in particular.
    """

    random: Callable[[], float]
    turn: int
    key: str


Strategy: TypeAlias = Callable[[Sequence[Candidate], Draw], Sequence[Candidate]]

_GOLDEN: Final = (5**0.5 - 1) / 2
_COLD: Final = 4.0  # a model that is to be loaded first is worth so much of a queue elsewhere
_TIE: Final = 1e-9  # what makes no difference but between equals
_WORD: Final = 2**64 - 1
_UNIT: Final = 2.0**-64


def failover(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:  # noqa: ARG001
    """Take them as the settings list them."""
    return candidates


def round_robin(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """Take them in strict turns; the others follow as in a ring.

    One that ramps up keeps that share of its turns, spread evenly over them by the golden ratio.
    The next in the ring has the rest.
    """
    if not candidates:
        return candidates
    lap, first = divmod(draw.turn, len(candidates))
    ring = _ring(candidates, first)
    due = lap * _GOLDEN % 1.0
    for passed, found in enumerate(ring):
        if due < found.ramp:
            return _ring(ring, passed) if passed else ring
    return ring  # all ramp up, and none of them is due


def random(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """Take any, whatever its weight; one that ramps up is taken less often."""
    uniform = draw.random
    return sorted(candidates, key=lambda found: -log(1.0 - uniform()) / found.ramp)


def weighted(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """Take each as often as its weight says; with a key, always the same one for this key.

    When a place goes, only its own keys move, and they come back with it: the first of them at
    once, the others as it ramps up.

    The smallest ``-ln(u) / weight`` is the first. With a new random u this is the permutation of
    Efraimidis and Spirakis ("Weighted random sampling with a reservoir", Information Processing
    Letters 97, 2006). With a hash of key and place for u it is rendezvous hashing (Thaler and
    Ravishankar, IEEE/ACM Transactions on Networking 6, 1998), with weights by the logarithmic
    method (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005).
    """
    chance = _fixed(draw.key) if draw.key else _fresh(draw.random)
    return sorted(candidates, key=lambda found: -log(chance(found)) / found.weight / found.ramp)


def least_busy(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """Take the one with the fewest calls for its weight; a cold one counts as 4 times as busy.

    Ties are broken at random: by index, all processes would run to the same place.
    """
    uniform = draw.random
    return sorted(candidates, key=lambda found: _busyness(found, uniform()))


def lowest_cost(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """Take the cheapest; among equals the least busy."""
    uniform = draw.random
    return sorted(candidates, key=lambda found: (found.price, _busyness(found, uniform())))


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "failover": failover,
    "round_robin": round_robin,
    "random": random,
    "weighted": weighted,
    "least_busy": least_busy,
    "lowest_cost": lowest_cost,
}

_is_warm = attrgetter("is_warm")


def affine(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Put the places where the model is warm first, and leave the order as it is otherwise."""
    return sorted(candidates, key=_is_warm, reverse=True)


def _ring(candidates: Sequence[Candidate], first: int) -> Sequence[Candidate]:
    return [*candidates[first:], *candidates[:first]]


def _busyness(found: Candidate, chance: float) -> float:
    """Return how busy a place is; ``chance``, from 0 to 1, decides between equals."""
    _, weight, ramp, load, is_warm, _ = found
    busyness = (load + 1) / weight / ramp * (1.0 + _TIE * chance)
    return busyness if is_warm else busyness * _COLD


def _fresh(uniform: Callable[[], float]) -> Callable[[Candidate], float]:
    """Return what gives any candidate a new number in (0, 1]."""
    return lambda _: 1.0 - uniform()


def _fixed(key: str) -> Callable[[Candidate], float]:
    """Return what gives a candidate always the same number in (0, 1), in every process.

    Key and place are hashed once each; what is random in both is so in their product, of which 64
    bits are kept. The numbers that one key has at several places are a point of a lattice rule
    (Korobov), as evenly spread over all keys as a fresh one for each.
    """
    seed = mark_of(key)
    return lambda found: ((seed * found.target.mark & _WORD) + 0.5) * _UNIT
