"""The arithmetic of rounds, without any clock."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.figures import Goal, Spread, order, ratios


@pytest.mark.parametrize("players", [2, 3, 4, 5, 6])
def test_everybody_has_every_place_as_often_and_not_always_the_same_before(players: int) -> None:
    rounds = [order(range(players), number) for number in range(2 * players)]

    for player in range(players):
        places = [one.index(player) for one in rounds]
        before = {one[place - 1] for one, place in zip(rounds, places, strict=True) if place}
        assert Counter(places) == dict.fromkeys(range(players), 2)
        assert len(before) == min(2, players - 1)


def test_every_round_has_everybody_once() -> None:
    assert all(sorted(order("abc", number)) == ["a", "b", "c"] for number in range(10))


def test_nobody_plays_in_no_order() -> None:
    assert order([], 3) == []


def test_a_spread_has_the_middle_and_the_bounds_of_the_middle_half() -> None:
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(median=3, low=2, high=4, least=1)


def test_a_single_figure_is_its_own_spread() -> None:
    assert Spread.of([0.5]) == Spread(0.5, 0.5, 0.5, 0.5)


def test_one_bad_round_does_not_move_the_median() -> None:
    assert Spread.of([1.0, 1.0, 1.0, 1.0, 900.0]).median == 1.0


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that was slow for a round was slow for both."""
    assert ratios([1, 10, 2], [2, 20, 4]) == Spread(0.5, 0.5, 0.5, 0.5)


def test_ratios_of_unequal_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(
    ("measured", "may_equal", "reached"),
    [(0.79, False, True), (0.8, False, False), (0.8, True, True), (0.81, True, False)],
)
def test_a_goal_is_to_be_stayed_below_or_met_where_it_says_so(
    measured: float, may_equal: bool, reached: bool
) -> None:
    goal = Goal(of="ours", limit=0.8, may_equal=may_equal)

    assert goal.is_reached_by(measured) is reached
