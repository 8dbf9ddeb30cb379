"""What processes write to each other: it comes back as it was, and nothing else is believed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_bridge.core.breaker import Breaker, BreakerPolicy, Mode, Snapshot, State
from ollama_bridge.state.letters import Letter, decode, encode

COUNTS = st.integers(min_value=0, max_value=2**63)
SECONDS = st.floats(min_value=0, max_value=1e9)
SNAPSHOTS = st.builds(
    Snapshot,
    generation=COUNTS,
    state=st.sampled_from(State),
    seconds=SECONDS,
    leased=st.booleans(),
    mode=st.sampled_from(Mode),
    openings=COUNTS,
    failures=COUNTS,
    last_error=st.text(),
)
MOMENTS = st.integers(min_value=0, max_value=2**40 - 1)
LETTERS = st.builds(Letter, sender=st.text(), snapshot=SNAPSHOTS, told_at=MOMENTS)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.text(), inner)
)
GOOD: list[Any] = ["one", 3, "open", 5.0, False, "auto", 1, 5, "timeout", 1_790_000_000]


def changed(place: int, value: object) -> str:
    parts = [*GOOD]
    parts[place] = value
    return json.dumps(parts)


@given(LETTERS)
def test_a_letter_comes_back_as_it_was(letter: Letter) -> None:
    assert decode(encode(letter)) == letter


@given(st.text() | st.binary() | SCALARS | JSON.map(json.dumps))
def test_garbage_is_no_letter(garbage: object) -> None:
    assert decode(garbage) is None


@given(place=st.integers(min_value=0, max_value=9), value=JSON)
def test_a_letter_with_a_wrong_part_is_none_or_one_that_a_circuit_survives(
    place: int, value: object
) -> None:
    letter = decode(changed(place, value))
    if letter is not None:
        assert decode(encode(letter)) == letter
        circuit = Breaker("default", BreakerPolicy(), lambda: 0.5, lambda _: None)
        circuit.adopt(letter.snapshot, 1000.0)
        circuit.reset(1000.0)
        assert circuit.admits(1000.0)
        assert circuit.generation == letter.snapshot.generation + 1


@pytest.mark.parametrize(
    "wrong",
    [
        changed(1, math.inf),
        changed(1, -1),
        changed(1, 1.5),
        changed(1, "3"),
        changed(2, "ajar"),
        changed(3, math.nan),
        changed(3, math.inf),
        changed(3, -1.0),
        changed(3, 10**400),
        changed(4, "false"),
        changed(5, "manual"),
        changed(8, 7),
        changed(9, -1),
        changed(9, 10**400),
        json.dumps(GOOD[:-1]),
        json.dumps([*GOOD, "more"]),
        "[" * 100_000,
        "9" * 5000,
        '{"a": 1}',
        b'["one"]',
    ],
    ids=range(20),
)
def test_what_no_circuit_can_be_is_no_letter(wrong: object) -> None:
    assert decode(wrong) is None


def test_the_letter_that_the_wrong_ones_were_made_from_is_one() -> None:
    assert decode(json.dumps(GOOD)) == Letter(
        "one",
        Snapshot(
            generation=3,
            state=State.OPEN,
            seconds=5.0,
            leased=False,
            mode=Mode.AUTO,
            openings=1,
            failures=5,
            last_error="timeout",
        ),
        1_790_000_000,
    )


@pytest.mark.parametrize(("age", "seconds"), [(-5, 600), (0, 600), (60, 600), (90, 510), (900, 0)])
def test_a_letter_that_is_older_than_a_minute_speaks_of_less_time(age: int, seconds: int) -> None:
    letter = decode(json.dumps([*GOOD[:3], 600.0, *GOOD[4:]]))
    assert letter is not None
    assert letter.aged(letter.told_at + age).seconds == seconds
