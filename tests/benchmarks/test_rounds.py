"""How rounds are played."""

from __future__ import annotations

import gc
from functools import partial
from itertools import count

import pytest

from benchmarks.contest import CannotRunError, Contestant
from benchmarks.rounds import mean, middle, play


def test_the_warm_up_is_played_and_thrown_away() -> None:
    numbers = count(100)
    one = Contestant(key="one", name="One", turn=lambda: float(next(numbers)))

    assert play([one], rounds=3, warm_up=True, tell=lambda _: None) == {"one": [101, 102, 103]}


def test_without_a_warm_up_the_first_round_counts() -> None:
    told: list[int] = []
    one = Contestant(key="one", name="One", turn=lambda: 1.0)

    assert play([one], rounds=2, warm_up=False, tell=told.append) == {"one": [1.0, 1.0]}
    assert told == [1, 2]


def test_everybody_has_one_turn_in_each_round_and_another_begins() -> None:
    played: list[str] = []

    def turn(key: str) -> float:
        played.append(key)
        return 1.0

    contestants = [Contestant(key=key, name=key, turn=partial(turn, key)) for key in "abc"]
    play(contestants, rounds=2, warm_up=True, tell=lambda _: played.append("|"))

    assert "".join(played) == "|abc|cba|bca"


def test_who_is_absent_is_left_out() -> None:
    here = Contestant(key="here", name="Here", turn=lambda: 1.0)
    away = Contestant(key="away", name="Away", absent="not installed")

    assert list(play([away, here], rounds=1, warm_up=False, tell=lambda _: None)) == ["here"]


def test_who_fails_is_named() -> None:
    def fail() -> float:
        raise OSError("no such thing")

    broken = Contestant(key="broken", name="The broken one", turn=fail)

    with pytest.raises(CannotRunError, match="The broken one failed: OSError: no such thing"):
        play([broken], rounds=1, warm_up=True, tell=lambda _: None)


def test_a_turn_begins_without_the_garbage_of_another_and_with_the_collector_on() -> None:
    seen: list[tuple[bool, bool]] = []

    def litter() -> float:
        ring: list[object] = []
        ring.append(ring)
        seen.append((gc.isenabled(), gc.get_count()[0] < gc.get_threshold()[0]))
        return 1.0

    frozen = gc.get_freeze_count()
    play([Contestant(key="a", name="A", turn=litter)], rounds=2, warm_up=True, tell=lambda _: None)

    assert seen == [(True, True)] * 3
    assert gc.get_freeze_count() <= frozen


def test_a_mean_and_a_middle_are_of_so_many_calls() -> None:
    calls = count()

    assert mean(lambda: next(calls), 5) > 0
    assert middle(lambda: next(calls), 4) > 0
    assert next(calls) == 9
