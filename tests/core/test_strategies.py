"""Each strategy by its figures: shares, stickiness, queues; seeded, so the same in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_bridge.core.strategies import STRATEGIES, Candidate, Draw, Strategy, affine

from .balancing import (
    KEYS,
    candidate,
    draw,
    fewest_of,
    homes,
    names,
    orders,
    serve,
    shares,
    slowness,
    three,
)

CALLS = 100_000
CLOSE = 0.02  # of the expected share
FEWER_CALLS, ROUGHLY = 30_000, 0.05
GOLDEN_KEYS = KEYS[:40]
SPREADING = ["round_robin", "random", "weighted", "least_busy", "lowest_cost"]


def by_name(candidates: Sequence[Candidate], draw: Draw) -> Sequence[Candidate]:
    """A strategy of a user's own: the last by name first, and each caller elsewhere."""
    reverse = len(draw.key) % 2 == 0
    return sorted(candidates, key=lambda found: found.target.name, reverse=reverse)


EVERY = {**STRATEGIES, "own": by_name}


def expected(values: Sequence[float]) -> dict[str, float]:
    return {name: value / sum(values) for name, value in zip("abc", values, strict=True)}


odd = st.builds(
    candidate,
    st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]),  # the same one twice, too
    weight=st.floats(0, exclude_min=True),
    ramp=st.floats(0, 1, exclude_min=True),
    load=st.integers(0, 10**9),
    is_warm=st.booleans(),
    price=st.floats(0),
)
uniform = st.one_of(
    st.sampled_from([0.0, 5e-324, 0.5, 1 - 2**-53]), st.floats(0, 1, exclude_max=True)
)


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None)
@given(
    candidates=st.lists(odd, max_size=10),
    turn=st.integers(0, 10**18),
    key=st.one_of(st.just(""), st.text(st.characters())),
    numbers=st.lists(uniform, min_size=10, max_size=10),
)
def test_all_candidates_come_back_and_the_same_facts_give_the_same_order(
    name: str, candidates: list[Candidate], turn: int, key: str, numbers: list[float]
) -> None:
    given_ones = tuple(candidates)
    found, again = (
        EVERY[name](given_ones, Draw(iter(numbers).__next__, turn, key)) for _ in range(2)
    )
    assert Counter(map(id, found)) == Counter(map(id, candidates))
    assert [*map(id, found)] == [*map(id, again)]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_extremes_of_chance_are_no_error(name: str, number: float) -> None:
    found = EVERY[name](three(), draw(uniform=lambda: number))
    assert sorted(names(found)) == ["a", "b", "c"]


def test_the_names_are_those_that_settings_know() -> None:
    assert [*STRATEGIES] == ["failover", *SPREADING]


@pytest.mark.parametrize("name", SPREADING)
@pytest.mark.parametrize("ramps", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.25), (0.25, 0.25, 0.25)])
def test_nobody_starves(name: str, ramps: Sequence[float]) -> None:
    candidates = three(ramp=ramps)
    served = serve(STRATEGIES[name], candidates, speeds=(4, 2, 1), rate=5, calls=3_000)
    assert fewest_of(served) >= 5


@pytest.mark.parametrize("name", SPREADING)
def test_nobody_starves_whose_weight_is_small(name: str) -> None:
    candidates = three(weight=(4, 2, 1))
    served = serve(STRATEGIES[name], candidates, speeds=(4, 2, 1), rate=5, calls=3_000)
    assert fewest_of(served) >= 5


def test_failover_takes_them_as_listed() -> None:
    candidates = three(load=(9, 0, 0), weight=(1, 50, 1), is_warm=(False, True, True))
    assert {*orders(STRATEGIES["failover"], candidates, 100)} == {"abc"}


def test_turns_are_strict_and_the_others_follow_in_the_ring() -> None:
    found = orders(STRATEGIES["round_robin"], three(weight=(1, 5, 9)), 7)
    assert found == ["abc", "bca", "cab", "abc", "bca", "cab", "abc"]


@pytest.mark.parametrize("ramp", [0.25, 0.5, 0.9])
def test_one_that_ramps_up_passes_turns_to_the_next_in_the_ring(ramp: float) -> None:
    found = orders(STRATEGIES["round_robin"], three(ramp=(1, ramp, 1)), 3_000)
    assert {*found[0::3]} == {"abc"}
    assert {*found[2::3]} == {"cab"}
    assert {*found[1::3]} == {"bca", "cab"}
    assert found[1::3].count("bca") == pytest.approx(1_000 * ramp, abs=2)


def test_the_turns_that_are_kept_are_spread_evenly() -> None:
    found = orders(STRATEGIES["round_robin"], three(ramp=(0.25, 1, 1)), 3_000)
    kept = [order == "abc" for order in found[0::3]]
    for begin in range(len(kept) - 20):
        assert 4 <= sum(kept[begin : begin + 20]) <= 6


def test_a_turn_goes_past_several_that_ramp_up() -> None:
    found = orders(STRATEGIES["round_robin"], three(ramp=(0.25, 0.5, 1)), 3_000)
    assert {*found[0::3]} == {"abc", "bca", "cab"}
    assert found[0::3].count("abc") == pytest.approx(250, abs=2)
    assert found[0::3].count("bca") == pytest.approx(250, abs=2)


def test_where_all_ramp_up_turns_are_strict() -> None:
    found = orders(STRATEGIES["round_robin"], three(ramp=(0.25,) * 3), 300)
    assert found == ["abc", "bca", "cab"] * 100


@pytest.mark.parametrize("keyed", [False, True], ids=["anybody", "keyed"])
@pytest.mark.parametrize("weights", [(1, 2, 3), (0.5, 0.3, 0.2), (10, 20, 70)])
def test_shares_are_as_the_weights_within_2_percent(
    weights: Sequence[float], *, keyed: bool
) -> None:
    found = shares(orders(STRATEGIES["weighted"], three(weight=weights), CALLS, keyed=keyed))
    assert found == pytest.approx(expected(weights), rel=CLOSE)


@pytest.mark.parametrize("keyed", [False, True], ids=["anybody", "keyed"])
def test_who_comes_second_is_as_the_weights_too(*, keyed: bool) -> None:
    candidates = three(weight=(1, 2, 3))
    found = orders(STRATEGIES["weighted"], candidates, FEWER_CALLS, keyed=keyed)
    after_c = Counter(order[1] for order in found if order[0] == "c")
    assert after_c["b"] / after_c["a"] == pytest.approx(2, rel=ROUGHLY)


def test_random_does_not_look_at_weights() -> None:
    found = Counter(orders(STRATEGIES["random"], three(weight=(1, 2, 70)), FEWER_CALLS))
    assert len(found) == 6
    for count in found.values():
        assert count == pytest.approx(FEWER_CALLS / 6, rel=ROUGHLY)


@pytest.mark.parametrize("ramp", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "keyed", "weights"),
    [
        ("random", False, (1, 1, 1)),
        ("weighted", False, (1, 2, 3)),
        ("weighted", True, (1, 2, 3)),
    ],
    ids=["random", "weighted", "keyed"],
)
def test_a_recovered_endpoint_has_the_share_of_its_ramp(
    name: str, ramp: float, weights: Sequence[float], *, keyed: bool
) -> None:
    candidates = three(weight=weights, ramp=(1, 1, ramp))
    found = shares(orders(STRATEGIES[name], candidates, FEWER_CALLS, keyed=keyed))
    ramped = (*weights[:2], weights[2] * ramp)
    assert found == pytest.approx(expected(ramped), rel=ROUGHLY)


@pytest.mark.parametrize("ramp", [0.25, 0.5, 1.0])
def test_a_recovered_endpoint_has_that_share_of_its_turns(ramp: float) -> None:
    found = shares(orders(STRATEGIES["round_robin"], three(ramp=(1, 1, ramp)), CALLS))
    assert found["c"] == pytest.approx(ramp / 3, rel=CLOSE)


def test_a_key_comes_to_the_same_place_whatever_else_happens() -> None:
    candidates = three(weight=(1, 2, 3))
    busy = three(weight=(1, 2, 3), load=(9, 0, 4), is_warm=(False, True, False), price=(3, 2, 1))
    assert homes(candidates) == homes(candidates) == homes([*reversed(busy)])
    assert {*homes(candidates).values()} == {*"abc"}


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_key_comes_to_the_same_place_in_another_process(hash_seed: str) -> None:
    code = (
        "from tests.core.balancing import homes, three;"
        "print(''.join(homes(three(weight=(1, 2, 3))).values()), end='')"
    )
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "".join(homes(three(weight=(1, 2, 3))).values())


def test_a_new_release_moves_no_key() -> None:
    found = homes(three(weight=(1, 2, 3)), GOLDEN_KEYS)
    assert "".join(found.values()) == "cbcabcbcbccbccacccaabcbaaabcccbcccbbabba"


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_when_a_place_goes_only_its_keys_move_and_they_come_back(gone: int) -> None:
    candidates = three(weight=(1, 2, 3))
    before = homes(candidates)
    left = homes([*candidates[:gone], *candidates[gone + 1 :]])
    moved = {key for key in KEYS if left[key] != before[key]}
    assert moved == {key for key in KEYS if before[key] == "abc"[gone]}
    assert homes(candidates) == before


def test_keys_of_a_place_that_went_are_spread_over_the_others_by_weight() -> None:
    before, left = homes(three(weight=(1, 2, 3))), homes(three(weight=(1, 2, 3))[:2])
    moved = Counter(left[key] for key in KEYS if before[key] == "c")
    assert moved["b"] / moved["a"] == pytest.approx(2, rel=0.1)


def test_a_new_place_takes_keys_and_moves_no_others() -> None:
    before = homes(three())
    after = homes([*three(), candidate("d")])
    moved = [key for key in KEYS if after[key] != before[key]]
    assert {after[key] for key in moved} == {"d"}
    assert len(moved) == pytest.approx(len(KEYS) / 4, rel=0.05)


def test_keys_come_back_to_a_place_as_it_ramps_up_and_stay() -> None:
    steps = [homes(three(ramp=(1, 1, ramp))) for ramp in (0.25, 0.5, 0.75, 1.0)]
    at_c = [{key for key in KEYS if step[key] == "c"} for step in steps]
    assert at_c[0] < at_c[1] < at_c[2] < at_c[3]
    assert all(step[key] == steps[0][key] for step in steps for key in KEYS if key not in at_c[3])


def test_any_text_is_a_key() -> None:
    keys = ["\0", "\ud800", "ключ", "k" * 100_000, *KEYS[:100]]
    assert homes(three(), keys) == homes(three(), keys)


@pytest.mark.parametrize("name", ["least_busy", "lowest_cost"])
@pytest.mark.parametrize(
    ("facts", "first"),
    [
        ({"load": (2, 1, 3)}, "b"),
        ({"load": (2, 1, 3), "weight": (1, 1, 5)}, "c"),
        ({"load": (0, 1, 2), "ramp": (0.25, 1, 1)}, "b"),
        ({"load": (2, 0, 0), "is_warm": (True, False, False)}, "a"),
        ({"load": (3, 0, 0), "is_warm": (True, False, False)}, "abc"),
        ({"load": (4, 0, 1), "is_warm": (True, False, False)}, "b"),
        ({"load": (5, 2, 2)}, "bc"),
        ({"load": (5, 3, 1), "weight": (3, 2, 1)}, "abc"),
    ],
    ids=["load", "weight", "ramp", "warm", "4-x-busy", "cold", "tie", "tie-by-weight"],
)
def test_at_one_price_the_least_busy_is_first_and_ties_are_broken_at_random(
    name: str, facts: dict[str, Sequence[object]], first: str
) -> None:
    found = shares(orders(STRATEGIES[name], three(**facts), 3_000))
    assert found == pytest.approx(dict.fromkeys(first, 1 / len(first)), rel=0.1)


def test_a_small_one_that_ramps_up_is_left_alone_until_its_help_is_needed() -> None:
    candidates = three(weight=(4, 2, 1), ramp=(1, 1, 0.25))
    strategy = STRATEGIES["least_busy"]
    calm = serve(strategy, candidates, speeds=(4, 2, 1), rate=3, calls=5_000)
    busy = serve(strategy, candidates, speeds=(4, 2, 1), rate=6.5, calls=5_000)
    assert {call.name for call in calm} == {"a", "b"}
    assert {call.name for call in busy} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("rate", "weights", "blind", "times"),
    [
        (2.0, (1, 1, 1), "random", 2.0),
        (2.7, (1, 1, 1), "random", 2.0),
        (2.0, (1, 1, 1), "round_robin", 1.5),
        (5.0, (4, 2, 1), "weighted", 1.5),
    ],
    ids=["random", "random-busier", "round-robin", "true-weights"],
)
def test_the_least_busy_beats_those_that_do_not_look_at_the_load(
    rate: float, weights: Sequence[float], blind: str, times: float, say: Callable[[str], None]
) -> None:
    candidates = three(weight=weights)
    blindly, ours = (
        slowness(serve(STRATEGIES[name], candidates, speeds=(4, 2, 1), rate=rate, calls=10_000))
        for name in (blind, "least_busy")
    )
    say(
        f"servers of 4, 2 and 1 calls a second at {rate} together, mean and p95: "
        f"{blind} {blindly[0]:.2f} s, {blindly[1]:.2f} s; "
        f"least_busy {ours[0]:.2f} s, {ours[1]:.2f} s"
    )
    assert ours[0] < blindly[0] / times
    assert ours[1] < blindly[1] / times


def test_the_cheapest_is_first_however_busy_it_is() -> None:
    candidates = three(price=(2.0, 0.5, 1.0), load=(0, 9, 0), is_warm=(True, False, True))
    assert {*orders(STRATEGIES["lowest_cost"], candidates, 100)} == {"bca"}


def test_of_two_that_are_cheapest_the_least_busy_is_first() -> None:
    candidates = three(price=(1.0, 1.0, 2.0), load=(3, 1, 0))
    assert {*orders(STRATEGIES["lowest_cost"], candidates, 100)} == {"bac"}


@settings(deadline=None)
@given(candidates=st.lists(odd, max_size=10))
def test_affinity_puts_the_warm_ones_first_and_keeps_the_order_otherwise(
    candidates: list[Candidate],
) -> None:
    warm = [id(found) for found in candidates if found.is_warm]
    cold = [id(found) for found in candidates if not found.is_warm]
    assert [*map(id, affine(candidates))] == [*warm, *cold]


def test_a_strategy_of_the_users_own_is_used_like_the_others() -> None:
    own: Strategy = by_name
    assert names(own(three(), draw())) == "cba"
    assert names(own(three(), draw(key="odd"))) == "abc"
    assert names(affine(own(three(is_warm=(True, False, False)), draw()))) == "acb"
    assert shares(orders(own, three(), 100)) == {"c": 1.0}
    served = serve(own, three(), speeds=(1, 1, 1), rate=0.5, calls=100)
    assert {call.name for call in served} == {"c"}
