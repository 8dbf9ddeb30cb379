"""Plays the rounds. Thin: who plays when, and what it comes to, is decided in ``figures``."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from .contest import CannotRunError
from .figures import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .contest import Contestant


def play(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    warm_up: bool,
    tell: Callable[[int], None],
) -> dict[str, list[float]]:
    """Return the figures of each round by the key of the contestant, without the warm-up.

    ``tell`` is called with the number of each round before it; the warm-up has number 0.

    Raises:
        CannotRunError: a contestant failed.
    """
    turns = {each: each.turn for each in contestants if each.turn is not None}
    figures: dict[str, list[float]] = {each.key: [] for each in turns}
    with _light_heap():
        for number in range(0 if warm_up else 1, rounds + 1):
            tell(number)
            for contestant in order(list(turns), number):
                figure = _played(contestant.name, turns[contestant])
                if number:
                    figures[contestant.key].append(figure)
    return figures


@contextmanager
def _light_heap() -> Iterator[None]:
    """Keep the collector from walking, in one contestant's turn, through what another loaded."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _played(name: str, turn: Callable[[], float]) -> float:
    """Return the figure of a turn, which begins without the garbage of the one before.

    The collector stays on in it: the garbage that a contestant makes is part of what it costs.
    """
    gc.collect()
    try:
        return turn()
    except Exception as error:
        raise CannotRunError(f"{name} failed: {type(error).__name__}: {error}") from error


def mean(call: Callable[[], object], calls: int) -> float:
    """Return the seconds of a call, as the mean of so many in a row."""
    started = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - started) / calls


def middle(call: Callable[[], object], calls: int) -> float:
    """Return the seconds of a call, as the median of so many that are timed one by one."""
    return median(mean(call, 1) for _ in range(calls))
