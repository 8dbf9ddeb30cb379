"""Counting calls, and what is computed from the counts."""

from __future__ import annotations

import pytest

from ollama_bridge import CircuitOpen, ConnectionFailed
from ollama_bridge.core.types import Attempt, ChatReply
from ollama_bridge.reliability.askers import Answer
from ollama_bridge.reliability.tally import Figures, Tally, Times, percentile


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(clock)


def attempts(number: int) -> tuple[Attempt, ...]:
    one = Attempt(endpoint="default", model="m", code="", status=200, seconds=0.1)
    return (one,) * number


def answered(
    tally: Tally, clock: Clock, seconds: float, tries: int = 1, first_token: float | None = None
) -> None:
    since = tally.begin()
    clock.now += seconds
    tally.answer(since, Answer(ChatReply("OK", attempts=attempts(tries)), first_token))


def test_before_the_first_call_there_is_nothing_to_say(tally: Tally) -> None:
    figures = tally.figures()
    assert figures == Figures()
    assert (figures.success_rate, figures.rate) == (None, None)


def test_the_figures_of_answered_calls(tally: Tally, clock: Clock) -> None:
    for seconds in (1.0, 2.0, 6.0):
        answered(tally, clock, seconds)
    figures = tally.figures()
    assert (figures.sent, figures.answered, figures.success_rate) == (3, 3, 100.0)
    assert figures.latency == Times(average=3.0, shortest=1.0, longest=6.0, p95=6.0)
    assert figures.total == 9.0
    assert figures.rate == pytest.approx(1 / 3)
    assert (figures.peak, figures.failures) == (1, ())


def test_the_time_to_the_first_piece_is_told_where_answers_come_in_pieces(
    tally: Tally, clock: Clock
) -> None:
    answered(tally, clock, 4.0, first_token=1.0)
    answered(tally, clock, 4.0, first_token=0.5)
    answered(tally, clock, 1.0)  # it was empty, and so had no first piece
    figures = tally.figures()
    assert figures.first_token == Times(average=0.75, shortest=0.5, longest=1.0, p95=1.0)
    assert figures.latency.average == 3.0


def test_whole_answers_have_no_first_piece(tally: Tally, clock: Clock) -> None:
    answered(tally, clock, 4.0)
    assert tally.figures().first_token is None


def test_a_failed_call_does_not_flatter_the_times(tally: Tally, clock: Clock) -> None:
    answered(tally, clock, 4.0)
    tally.begin()
    tally.fail(ConnectionFailed("Start it"))
    figures = tally.figures()
    assert (figures.sent, figures.answered, figures.success_rate) == (2, 1, 50.0)
    assert (figures.latency.average, figures.latency.shortest) == (4.0, 4.0)
    assert figures.rate == 0.25


def test_failures_are_grouped_by_code_with_each_sentence_once(tally: Tally) -> None:
    errors = [
        CircuitOpen("OPEN. Next try in 5 s"),
        ConnectionFailed("Start it"),
        CircuitOpen("OPEN. Next try in 4 s"),
        CircuitOpen("An operator has opened it"),
    ]
    for error in errors:
        tally.begin()
        tally.fail(error)
    first, second = tally.figures().failures
    assert (first.code, first.count) == ("circuit_open", 3)
    assert first.sentences == ("OPEN. Next try in 5 s", "An operator has opened it")
    assert (second.code, second.count, second.sentences) == ("connection_failed", 1, ("Start it",))


def test_retries_are_those_of_answered_and_of_failed_calls(tally: Tally, clock: Clock) -> None:
    answered(tally, clock, 1.0, tries=3)
    tally.begin()
    tally.fail(ConnectionFailed("", attempts=attempts(4)))
    tally.begin()
    tally.fail(CircuitOpen(""))
    assert tally.figures().retries == 2 + 3


def test_the_peak_is_the_most_calls_at_the_same_time(tally: Tally, clock: Clock) -> None:
    first, second = tally.begin(), tally.begin()
    tally.answer(first, Answer(ChatReply("OK")))
    third = tally.begin()
    tally.answer(second, Answer(ChatReply("OK")))
    tally.answer(third, Answer(ChatReply("OK")))
    assert tally.figures().peak == 2


def test_what_is_under_way_counts_neither_way(tally: Tally, clock: Clock) -> None:
    answered(tally, clock, 1.0)
    tally.begin()
    clock.now += 2.0
    figures = tally.figures()
    assert (figures.sent, figures.unfinished, figures.success_rate) == (2, 1, 100.0)
    assert figures.total == tally.elapsed() == 3.0


@pytest.mark.parametrize(
    ("size", "expected"), [(1, 1), (10, 10), (19, 19), (20, 19), (21, 20), (100, 95)]
)
def test_the_95th_percentile_is_the_nearest_rank(size: int, expected: int) -> None:
    assert percentile(range(1, size + 1), 0.95) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.95) is None


def test_where_calls_went_is_told_of_those_that_failed_too(tally: Tally) -> None:
    def at(endpoint: str, code: str = "", status: int | None = 200) -> Attempt:
        return Attempt(endpoint=endpoint, model="m", code=code, status=status, seconds=0.1)

    for way in (
        (at("a"),),
        (at("a", "upstream_failed", 503), at("b")),
        (at("a", "circuit_open", None), at("b")),
    ):
        reply = ChatReply("OK", attempts=way, endpoint=way[-1].endpoint)
        tally.answer(tally.begin(), Answer(reply))
    tally.begin()
    lost = at("a", "circuit_open", None), at("b", "timeout", None), at("b", "timeout", None)
    tally.fail(ConnectionFailed("Cannot connect", attempts=lost))
    figures = tally.figures()
    assert figures.answered_by == {"a": 1, "b": 2}
    assert (figures.hops, figures.passed_by, figures.retries) == (1, 2, 1)
