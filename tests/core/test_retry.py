from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge import errors
from ollama_bridge.core.retry import (
    LONGEST_RETRY_AFTER,
    RetryBudget,
    RetryPolicy,
    parse_retry_after,
)


@given(
    retry=st.integers(1, 10_000),
    initial=st.floats(0, 1000),
    factor=st.floats(1, 100),
    cap=st.floats(0, 1000),
    seed=st.integers(),
    jitter=st.sampled_from(["full", "none"]),
)
def test_every_delay_is_within_zero_and_the_cap(
    retry: int, initial: float, factor: float, cap: float, seed: int, jitter: str
) -> None:
    policy = RetryPolicy(
        initial_delay=initial,
        factor=factor,
        max_delay=cap,
        jitter=jitter,  # type: ignore[arg-type]  # one of the two
    )
    assert 0 <= policy.delay(retry, random.Random(seed).uniform) <= cap


def test_without_jitter_the_delay_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy(jitter="none")
    assert [policy.delay(n, random.uniform) for n in range(1, 6)] == [1, 2, 4, 8, 8]


def test_full_jitter_is_uniform_from_zero() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high / 2

    assert RetryPolicy().delay(3, uniform) == 2
    assert asked == [(0.0, 4.0)]


def test_a_fixed_delay_is_meant_literally() -> None:
    policy = RetryPolicy(backoff="fixed", fixed_delay=10.0)
    assert [policy.delay(n, random.uniform) for n in (1, 2, 9)] == [10, 10, 10]


def with_status(error: errors.OllamaBridgeError, status: int) -> errors.OllamaBridgeError:
    error.status = status
    return error


def not_retryable(error: errors.OllamaBridgeError) -> errors.OllamaBridgeError:
    error.retryable = False
    return error


@pytest.mark.parametrize(
    ("error", "repeats"),
    [
        (errors.ConnectionFailed(), True),
        (not_retryable(errors.ConnectionFailed()), False),
        (errors.Timeout(phase="connect"), True),
        (errors.Timeout(phase="total"), False),
        (errors.Timeout(phase="first_token"), False),
        (with_status(errors.ServerFailed(), 500), True),
        (with_status(errors.ServerFailed(), 503), True),
        (with_status(errors.ServerFailed(), 200), False),
        (with_status(errors.ServerFailed(), 501), False),
        (with_status(errors.RateLimited(), 429), True),
        (with_status(errors.QuotaExhausted(), 429), False),
        (with_status(errors.Overloaded(), 503), True),
        (with_status(errors.RequestRejected(), 500), False),
        (with_status(errors.ContextTooLong(), 500), False),
        (with_status(errors.ModelNotFound(), 404), False),
        (errors.InvalidReply(), False),
        (errors.StreamInterrupted(), False),
    ],
    ids=repr,
)
def test_only_what_may_pass_is_repeated(error: errors.OllamaBridgeError, repeats: bool) -> None:
    assert RetryPolicy().repeats(error) is repeats


@given(st.lists(st.sampled_from(["call", "repeat", "repeat", "repeat"]), max_size=2000))
def test_without_success_repeats_are_bounded_by_the_budget(script: list[str]) -> None:
    budget, firsts, repeats = RetryBudget(), 0, 0
    for step in script:
        if step == "call":
            budget.earn()
            firsts += 1
        else:
            repeats += budget.spend()
    assert repeats <= 100 + 0.2 * firsts


def test_a_dead_server_gets_no_more_than_its_budget() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(1000)) == 100
    assert not budget.spend()


def test_a_call_that_succeeds_gives_its_tokens_back_and_no_more() -> None:
    budget = RetryBudget()
    for _ in range(3):
        budget.spend()
    budget.refund(3)
    assert budget.tokens == 100
    budget.refund(3)
    assert budget.tokens == 100


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),  # digits, but no ASCII ones
        ("0", 0.0),
        (" 12 ", 12.0),
        ("99999999999999999999", LONGEST_RETRY_AFTER),
        ("Sat, 21 Nov 2026 00:00:30 GMT", 30.0),
        ("Fri, 20 Nov 2026 23:00:00 GMT", 0.0),
        ("Sat Nov 21 00:00:30 2026", 30.0),
        ("Sat, 21 Nov 2026 00:00:30 -0000", 30.0),
        ("Sat, 21 Nov 2099 00:00:00 GMT", LONGEST_RETRY_AFTER),
        ("Sat, 99 Nov 2026 00:00:30 GMT", None),
        ("Sat, 21 Nov 99999 00:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(
    value: str | None, seconds: float | None
) -> None:
    wall = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
    assert parse_retry_after(value, wall=wall) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_however_odd_is_an_error(value: str) -> None:
    seconds = parse_retry_after(value, wall=0.0)
    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER


@given(st.integers(0, 80_000))
def test_a_date_in_the_future_is_the_seconds_until_then(ahead: int) -> None:
    wall = 1_800_000_000
    date = format_datetime(datetime.fromtimestamp(wall + ahead, UTC), usegmt=True)
    assert parse_retry_after(date, wall=wall) == ahead
