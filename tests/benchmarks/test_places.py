"""Whether the figures of a choice among endpoints are of what they say."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from benchmarks import peers, project
from benchmarks.cases import places
from benchmarks.rounds import mean, play
from ollama_bridge.core.strategies import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from ollama_bridge.core.router import Router

CALLS = 160


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*project.WITHOUT_NETWORK)


def visits(router: Router) -> list[int]:
    """Return how many visits each endpoint has had."""
    now = time.monotonic()
    windows = [router.place(each).breaker._window for each in router.plan.endpoints]
    return [window.totals(now)[1] for window in windows]


def test_each_strategy_takes_part_and_the_goal_is_for_the_slowest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = count(1)
    monkeypatch.setattr(places, "mean", lambda *_: float(next(figures)))
    with places.BENCHMARK.gather(CALLS) as contestants:
        slowest, *others = (each for each in contestants if each.turn is not None)
        assert slowest.key == places.BENCHMARK.goal.of  # type: ignore[union-attr]
        assert {*STRATEGIES} < {each.key for each in others}
        assert slowest.turn() == len(STRATEGIES) + 1  # type: ignore[misc]


def test_a_call_is_a_visit_to_one_of_all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    routers: dict[int, Router] = {}
    visit = places._visit

    def noted(router: Router, choose: places.Choose) -> Callable[[], None]:
        routers[len(routers)] = router
        return visit(router, choose)

    monkeypatch.setattr(places, "_visit", noted)
    with places.BENCHMARK.gather(CALLS) as contestants:
        play(contestants[1:-1], rounds=1, warm_up=False, tell=lambda _: None)
    each = dict(zip([*STRATEGIES, "keyed", "alone"], map(visits, routers.values()), strict=True))
    assert {name: len(found) for name, found in each.items()} == dict.fromkeys(each, 8)
    assert {sum(found) - 8 for found in each.values()} == {CALLS}  # with the first one to each
    assert each["round_robin"] == [1 + CALLS // 8] * 8
    assert each["failover"] == each["alone"] == [1 + CALLS, *[1] * 7]
    assert sorted(each["keyed"]) == [*[1] * 7, 1 + CALLS]
    assert min(each["random"]) > 1


@pytest.mark.skipif(not peers.is_here("litellm"), reason="LiteLLM is not installed here")
def test_litellm_chooses_among_as_many() -> None:
    choose = places._litellm("http://127.0.0.1:9")
    assert mean(choose, 3) > 0
    found = {choose()["model_info"]["id"] for _ in range(200)}  # type: ignore[index]
    assert len(found) == 8
