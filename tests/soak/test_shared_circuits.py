"""Circuits that processes share, longer and harder than every day."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from ollama_bridge.testing import FakeOllama, faults
from tests.state.redisserver import RedisServer
from tests.state.site import Site, all_do
from tests.state.test_processes import begin, circuits, fail_at_once, open_at, probe

pytestmark = pytest.mark.soak

CALLS = 200
ROUNDS = 200


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def sites(redis: RedisServer) -> Iterator[list[Site]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Site(redis.cache)) for _ in range(4)]


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


def test_200_calls_that_fail_in_each_of_four_processes_open_once(
    sites: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
) -> None:
    begin(sites, fake_ollama, prefix, TIMEOUT=60)
    assert fail_at_once(sites, fake_ollama, CALLS) == {"connection_failed": 4 * CALLS}
    all_do(sites, "keep", 1.0, 0.05)
    assert circuits(sites) == [("open", 1, "auto")] * 4
    assert len(redis.told(prefix)) == 1


def test_of_four_processes_one_probes_in_each_of_200_rounds(
    sites: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
) -> None:
    probe(sites, fake_ollama, redis, prefix, rounds=ROUNDS)


def test_a_prober_that_was_killed_is_followed_when_its_lease_ends(
    sites: list[Site],
    fake_ollama: FakeOllama,
    redis: RedisServer,
    prefix: str,
    say: Callable[[str], None],
) -> None:
    doomed = Site(redis.cache)
    begin([*sites, doomed], fake_ollama, prefix, TIMEOUT=1, OPEN_SECONDS=0.5)
    open_at(doomed, fake_ollama)
    for site in sites:
        site.await_("circuit_open")
    fake_ollama.misbehave(faults.BlackHole())
    doomed.tell("persist")
    fake_ollama.wait_for(lambda server: server.in_flight == 1)
    doomed.kill()
    fake_ollama.behave()
    took = sites[0].await_("answered")
    say(f"a killed prober, with a timeout of 1 s, was followed after {took:.1f} s")
    assert 5 < took < 1 + 5 + 1
    for site in sites[1:]:
        assert site.await_("answered") < 1


def test_a_redis_that_comes_and_goes_fails_no_call_and_is_used_again(
    sites: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
) -> None:
    begin(sites, fake_ollama, prefix)
    for _ in range(3):
        for site in sites:
            site.tell("keep", 6, 0.005)
        time.sleep(1)
        redis.kill()
        time.sleep(2)
        redis.start()
        for answers, waits in [site.hear() for site in sites]:
            assert [*answers] == ["answered"]
            assert max(waits) < 0.1
        sites[0].do("move", "force_open")
        for site in sites:
            assert site.await_("circuit_open") < 1
        sites[0].do("move", "reset")
        for site in sites:
            assert site.await_("answered") < 1
