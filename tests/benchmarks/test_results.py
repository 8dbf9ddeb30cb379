"""What rounds come to, and whether that is good enough."""

from __future__ import annotations

from . import made


def test_a_ratio_is_held_against_the_goal() -> None:
    assert (made.REACHED.measured, made.REACHED.is_reached) == (0.5, True)
    assert (made.MISSED.measured, made.MISSED.is_reached) == (1.0, False)


def test_a_figure_is_held_against_a_goal_in_its_unit() -> None:
    assert (made.ABSOLUTE.measured, made.ABSOLUTE.is_reached) == (2048, True)


def test_without_the_peer_a_ratio_cannot_be_judged() -> None:
    assert made.UNJUDGED.is_reached is None
    assert made.UNJUDGED.is_open
    assert made.UNJUDGED.row("ours").ratio is None


def test_what_is_for_information_neither_misses_nor_waits_for_anything() -> None:
    assert made.FOR_INFORMATION.is_reached is None
    assert not made.FOR_INFORMATION.is_open


def test_a_run_is_complete_if_all_ran_and_all_goals_were_judged() -> None:
    assert made.run(made.REACHED, made.MISSED, made.FOR_INFORMATION).is_complete
    assert not made.run(made.REACHED, made.UNJUDGED).is_complete
    assert not made.run(made.REACHED, failures={"chat": "no server"}).is_complete


def test_a_run_has_missed_if_one_goal_was() -> None:
    assert made.run(made.REACHED, made.MISSED).has_missed
    assert not made.run(made.REACHED, made.UNJUDGED, made.FOR_INFORMATION).has_missed


def test_a_result_says_how_many_calls_it_had() -> None:
    assert made.REACHED.what == "One call of 2,000, as a sample."
    assert made.REACHED.rounds == 3
