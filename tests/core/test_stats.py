"""Figures of calls."""

from __future__ import annotations

import random
import statistics
import threading

import pytest

from ollama_bridge import errors
from ollama_bridge.core.actions import FaultKind
from ollama_bridge.core.events import (
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallRefused,
    CallRemembered,
    CircuitClosed,
    Event,
)
from ollama_bridge.core.stats import OTHER, Latencies, Stats
from ollama_bridge.core.types import Usage

from .virtual import World, reply


def answered(seconds: float = 1.0, *, endpoint: str = "default", model: str = "m") -> Event:
    usage = Usage(prompt_tokens=3, completion_tokens=4)
    return CallAnswered(
        seconds=seconds, usage=usage, endpoint=endpoint, model=model, request_id="r"
    )


def failed(error: errors.OllamaBridgeError) -> Event:
    return CallFailed(repeats=1, seconds=1.0, error=error, request_id="r")


def test_before_the_first_call_there_are_no_rates_and_no_latencies() -> None:
    figures = Stats().to_dict({})
    assert figures["total_requests"] == 0
    names = ["success_rate", "avg_latency_ms", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms"]
    assert [figures[name] for name in names] == [None] * 5
    assert figures["endpoints"] == {}


def test_answered_failed_and_refused_calls_are_counted() -> None:
    stats = Stats()
    for _ in range(6):
        stats.note(answered())
    stats.note(failed(errors.Timeout(endpoint="default", model="m")))
    refused = errors.CircuitOpen(endpoint="default", model="m")
    stats.note(CallRefused(error=refused, request_id="r"))
    figures = stats.to_dict({})
    assert figures["total_requests"] == 8
    assert figures["successful_requests"] == 6
    assert (figures["failed_requests"], figures["refused_requests"]) == (2, 1)
    assert figures["success_rate"] == 75.0
    assert figures["errors"] == {"timeout": 1, "circuit_open": 1}
    tokens = [figures[f"{kind}_tokens"] for kind in ("prompt", "completion", "total")]
    assert tokens == [18, 24, 42]


def test_a_call_that_another_ones_answer_served_counts_as_answered_and_takes_no_tokens() -> None:
    stats = Stats()
    stats.note(answered(3.0))
    stats.note(CallRemembered(seconds=1.0, endpoint="default", model="m", request_id="r"))
    figures = stats.to_dict({})
    assert (figures["total_requests"], figures["successful_requests"]) == (2, 2)
    assert figures["cached_requests"] == 1
    assert (figures["success_rate"], figures["avg_latency_ms"]) == (100.0, 2000.0)
    assert figures["total_tokens"] == 7
    of_model = figures["endpoints"]["default"]["models"]["m"]
    assert of_model["cached_requests"] == 1


def test_a_cancelled_call_is_counted_apart_and_is_no_failure() -> None:
    stats = Stats()
    stats.note(answered(model="x"))
    for model in "xxy":
        stats.note(CallCancelled(seconds=9.0, endpoint="default", model=model, request_id="r"))
    figures = stats.to_dict({})
    assert (figures["cancelled_requests"], figures["total_requests"]) == (3, 1)
    assert (figures["success_rate"], figures["avg_latency_ms"]) == (100.0, 1000.0)
    of_model = figures["endpoints"]["default"]["models"]
    assert [of_model[name]["cancelled_requests"] for name in "xy"] == [2, 1]


def test_figures_are_there_for_each_endpoint_and_model_and_add_up() -> None:
    stats = Stats()
    stats.note(answered(1.0, endpoint="a", model="x"))
    stats.note(answered(3.0, endpoint="a", model="y"))
    stats.note(answered(8.0, endpoint="b", model="x"))
    figures = stats.to_dict({("b", "x"): (2, 5), ("b", "z"): (1, 0)})
    assert figures["avg_latency_ms"] == 4000.0
    a, b = figures["endpoints"]["a"], figures["endpoints"]["b"]
    assert a["avg_latency_ms"] == 2000.0
    assert a["models"]["y"]["avg_latency_ms"] == 3000.0
    assert (b["in_flight"], b["waiting"]) == (figures["in_flight"], figures["waiting"]) == (3, 5)
    assert b["models"]["z"]["total_requests"] == 0


def test_an_error_of_no_one_endpoint_counts_in_the_total_alone() -> None:
    stats = Stats()
    stats.note(failed(errors.AllEndpointsFailed(model="m")))
    figures = stats.to_dict({})
    assert figures["failed_requests"] == 1
    assert figures["endpoints"] == {}


def test_what_circuits_do_is_no_call() -> None:
    stats = Stats()
    stats.note(CircuitClosed(circuit="default"))
    assert stats.to_dict({})["total_requests"] == 0


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_percentiles_are_true_to_2_2_percent(percent: int) -> None:
    chance = random.Random(percent)
    sample = [chance.lognormvariate(0.0, 2.0) for _ in range(20_000)]
    latencies = Latencies()
    for seconds in sample:
        latencies.add(seconds)
    exact = sorted(sample)[len(sample) * percent // 100 - 1]
    assert latencies.percentile(percent) == pytest.approx(exact, rel=0.022)
    assert latencies.mean() == pytest.approx(statistics.fmean(sample))


def test_latencies_that_are_all_the_same_are_exact() -> None:
    latencies = Latencies()
    for _ in range(3):
        latencies.add(1.234)
    assert {latencies.percentile(percent) for percent in (1, 50, 100)} == {1.234}


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 86_400.0])
def test_no_latency_is_too_short_or_too_long(seconds: float) -> None:
    latencies = Latencies()
    latencies.add(seconds)
    assert latencies.percentile(50) == pytest.approx(max(seconds, 1e-6))


def test_memory_is_bounded_where_visitors_choose_the_names() -> None:
    stats = Stats()
    for number in range(1000):
        stats.note(answered(model=f"m{number}"))
    figures = stats.to_dict({})
    models = figures["endpoints"]["default"]["models"]
    assert len(models) <= 257
    assert figures["total_requests"] == 1000
    assert models[OTHER]["total_requests"] == 1000 - 256


def test_no_count_is_lost_between_threads() -> None:
    stats = Stats()

    def note() -> None:
        for _ in range(2000):
            stats.note(answered())

    threads = [threading.Thread(target=note) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats.to_dict({})["total_requests"] == 16_000


def test_a_forked_child_counts_its_own_calls() -> None:
    stats = Stats()
    stats.note(answered())
    stats._lock.acquire()
    stats.after_fork()
    stats.note(answered())
    assert stats.to_dict({})["total_requests"] == 1


def test_a_flow_feeds_them() -> None:
    world = World()
    stats = Stats()
    world.router.observe = stats.note
    world.script = [FaultKind.REFUSED, reply()]
    world.chat()
    world.default = reply({"error": "no"}, status=400)
    with pytest.raises(errors.RequestRejected):
        world.chat()
    figures = stats.to_dict(world.router.load())["endpoints"]["default"]["models"]["m"]
    assert (figures["successful_requests"], figures["failed_requests"]) == (1, 1)
    assert figures["retries"] == 1
    assert figures["completion_tokens"] == 4
    assert figures["avg_latency_ms"] == pytest.approx(1100 + 100)
