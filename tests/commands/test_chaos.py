"""How simulated endpoints misbehave: by seed, by request and by the clock."""

from __future__ import annotations

import asyncio
from itertools import islice, pairwise
from typing import Any, get_args

import pytest

from ollama_bridge.reliability import conduct
from ollama_bridge.reliability.chaos import (
    FAULTS,
    NAMES,
    Death,
    Trouble,
    deaths,
    timeouts,
    troubles,
)
from ollama_bridge.reliability.conduct import COOLDOWN, Conduct, Mortal
from ollama_bridge.reliability.plan import ACTS, PROFILES, Act


def met(act: Act, name: str, requests: int = 40, seed: int = 7) -> list[Trouble | None]:
    return list(islice(troubles(act, seed)[name], requests))


@pytest.mark.parametrize("name", NAMES)
def test_of_a_flaky_endpoint_each_odd_request_fails(name: str) -> None:
    found = met("flaky", name)
    assert set(found[1::2]) == {None}
    assert (found.count("503"), found.count("reset")) == (10, 10)


def test_the_slow_are_the_first_two() -> None:
    assert [set(met("slow", name)) for name in NAMES] == [{"stall"}, {"drip"}, {None}]
    limits = timeouts("slow")
    assert limits["a"] + limits["b"] < limits["c"] / 2  # which is that of the whole call


def test_the_first_account_is_over_its_limit_and_to_the_second_one_call_in_four_is_too_many() -> (
    None
):
    assert [set(met("rate-limited", name)) for name in "ac"] == [{"usage limit"}, {None}]
    found = met("rate-limited", "b")
    assert all(found[at : at + 4].count("too many at once") == 1 for at in range(0, 40, 4))


def test_who_is_killed_does_nothing_else() -> None:
    assert {each for name in NAMES for each in met("dying", name)} == {None}


@pytest.mark.parametrize("act", ACTS)
def test_the_same_seed_makes_the_same_chaos(act: Act) -> None:
    for name in NAMES:
        assert met(act, name, seed=7) == met(act, name, seed=7)
    assert list(islice(deaths(act, 7), 5)) == list(islice(deaths(act, 7), 5))


def test_another_seed_makes_another_chaos() -> None:
    assert met("flaky", "a", seed=7) != met("flaky", "a", seed=8)
    assert met("flaky", "a") != met("flaky", "b")
    assert met("rate-limited", "b", seed=7) != met("rate-limited", "b", seed=8)
    assert next(deaths("dying", 7)) != next(deaths("dying", 8))


@pytest.mark.parametrize("seed", range(20))
def test_the_dying_live_long_enough_to_be_tried_again(seed: int) -> None:
    found = list(islice(deaths("dying", seed), 20))
    assert found[0].until < 1.0  # of the two seconds that the shortest drill has
    for one, following in pairwise(found):
        assert one.until - one.at == pytest.approx(0.5)
        assert following.at - one.until > 0.6  # the longest open time of the drill


@pytest.mark.parametrize("act", ["flaky", "slow", "rate-limited"])
def test_of_the_others_nobody_dies(act: Act) -> None:
    assert list(deaths(act, 7)) == []


def test_every_trouble_is_a_fault() -> None:
    assert set(FAULTS) == set(get_args(Trouble))


def test_mixed_is_all_of_them() -> None:
    assert PROFILES["mixed"] == ACTS
    assert [PROFILES[act] for act in ACTS] == [(act,) for act in ACTS]


class Exchange:
    """Takes note of what is sent."""

    def __init__(self) -> None:
        self.sent: list[object] = []

    def honest(self) -> str:
        return "honest"

    async def sleep(self, _seconds: float) -> None:
        """Sleep no time."""

    async def send(self, reply: object) -> None:
        self.sent.append(reply)


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def ask(server: Conduct) -> list[Any]:
    exchange = Exchange()
    asyncio.run(server.reply(exchange))  # type: ignore[arg-type]  # all that it needs of one
    return exchange.sent


def test_what_an_endpoint_does_is_counted() -> None:
    server = Conduct(iter(["503", None, None, "503"]))
    sent = [ask(server) for _ in range(4)]
    assert [each == ["honest"] for each in sent] == [False, True, True, False]
    assert (server.requests, server.served, server.met) == (4, 2, {"503": 2})
    assert (server.held, server.probes) == (0, 0)


def test_requests_of_who_should_know_better_are_told_from_tries_after_a_cooldown() -> None:
    clock = Clock()
    server = Conduct(iter(["usage limit"] * 6), clock)
    for seconds in (0.0, 0.0, COOLDOWN / 2, COOLDOWN / 2, COOLDOWN / 2, COOLDOWN / 2):
        clock.now += seconds
        ask(server)
    assert (server.held, server.probes) == (6, 3)


class Server:
    """Takes note of what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def refuse(self) -> None:
        self.done.append("refuse")

    def listen(self) -> None:
        self.done.append("listen")


class TestAMortal:
    @pytest.fixture
    def server(self) -> Server:
        return Server()

    @pytest.fixture
    def served(self) -> Conduct:
        return Conduct(iter(()))

    @pytest.fixture
    def mortal(self, server: Server, served: Conduct) -> Mortal:
        twice = iter([Death(1.0, 2.0), Death(3.0, 4.0)])
        return Mortal(server, served, twice)  # type: ignore[arg-type]  # all that it needs of one

    def test_is_killed_and_comes_back_when_it_is_time(self, mortal: Mortal, server: Server) -> None:
        done = []
        for tenths in range(50):
            mortal.look(tenths / 10)
            done.append(len(server.done))
        assert [done.index(number) for number in range(1, 5)] == [10, 20, 30, 40]
        assert server.done == ["refuse", "listen"] * 2
        assert (mortal.deaths, mortal.returns) == (2, 0)

    def test_has_returned_when_it_has_served_again(self, mortal: Mortal, served: Conduct) -> None:
        for seconds, answers, returns in ((1.0, 5, 0), (2.0, 5, 0), (2.1, 5, 0), (2.2, 6, 1)):
            served.served = answers
            mortal.look(seconds)
            assert mortal.returns == returns
        mortal.look(2.3)
        assert mortal.returns == 1  # once for each death

    def test_that_was_not_asked_between_two_deaths_has_not_returned(
        self, mortal: Mortal, served: Conduct
    ) -> None:
        for seconds in (1.0, 2.0, 3.0, 4.0):
            mortal.look(seconds)
        served.served = 1
        mortal.look(4.1)
        assert (mortal.deaths, mortal.returns) == (2, 1)

    def test_without_deaths_lives_on(self, server: Server, served: Conduct) -> None:
        immortal = Mortal(server, served, iter(()))  # type: ignore[arg-type]  # as above
        immortal.look(1000.0)
        assert (server.done, immortal.deaths) == ([], 0)


def test_bad_replies_take_as_long_as_good_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else failures would overtake answers, and look like a row of them."""
    slept: list[float] = []

    async def sleep(_: Exchange, seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(Exchange, "sleep", sleep)
    server = Conduct(iter(["503", None]))
    ask(server)
    ask(server)
    assert slept == [conduct.SERVICE] * 2
