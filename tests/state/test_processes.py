"""Several processes that share their circuits through a real Redis, or through a database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ollama_bridge.testing import FakeOllama, faults
from tests.servers.databases import Database, empty_postgres

from .redisserver import RedisServer
from .site import Site, all_do
from .stores import DATABASE_CACHE, TABLE

PATIENCE = 0.05
SLACK = 0.045  # of a machine that has more to do
REFUSED = {"connection_failed": 5}
CALLS = 50
BUSY = "KeepsNothingError"  # what SQLite comes to while a caller writes


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def start(redis: RedisServer) -> Iterator[Callable[[int], list[Site]]]:
    """Return so many sites, which are started once for all tests."""
    running: list[Site] = []
    with ExitStack() as stack:

        def start(number: int) -> list[Site]:
            while len(running) < number:
                running.append(stack.enter_context(Site(redis.cache)))
            return running[:number]

        yield start


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


@pytest.fixture
def sites(start: Callable[[int], list[Site]], fake_ollama: FakeOllama, prefix: str) -> list[Site]:
    """Two sites with closed circuits, each of which has chatted once."""
    found = start(2)
    begin(found, fake_ollama, prefix)
    return found


@pytest.fixture
def four(start: Callable[[int], list[Site]], fake_ollama: FakeOllama, prefix: str) -> list[Site]:
    found = start(4)
    begin(found, fake_ollama, prefix)
    return found


def begin(sites: list[Site], server: FakeOllama, prefix: str, **bridge: object) -> None:
    for site in sites:
        site.begin(server.url, CACHE_PREFIX=prefix, **bridge)
    assert all_do(sites, "chat") == ["answered"] * len(sites)


def open_at(site: Site, server: FakeOllama) -> None:
    """Let the server be down for so long that this site opens its circuit."""
    server.refuse()
    assert site.do("crowd", 5) == REFUSED
    server.listen()


def circuits(sites: list[Site]) -> list[tuple[str, int, str]]:
    return [site.circuit() for site in sites]


class TestWhatOneFindsAllKnow:
    def test_an_opening_is_seen_by_the_others_within_a_second(
        self, sites: list[Site], fake_ollama: FakeOllama
    ) -> None:
        open_at(sites[0], fake_ollama)
        started = time.monotonic()
        for site in sites[1:]:
            site.await_("circuit_open")
        assert time.monotonic() - started < 1
        assert circuits(sites) == [("open", 1, "auto")] * 2

    def test_a_health_check_knows_it_where_no_call_was_made(
        self, sites: list[Site], fake_ollama: FakeOllama
    ) -> None:
        open_at(sites[0], fake_ollama)
        time.sleep(0.5)  # it is the interval between two readings
        assert sites[1].do("health") == "open"

    def test_calls_that_fail_in_all_at_once_open_once(
        self, four: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
    ) -> None:
        assert fail_at_once(four, fake_ollama, CALLS) == {"connection_failed": 4 * CALLS}
        all_do(four, "keep", 0.55, 0.05)
        assert circuits(four) == [("open", 1, "auto")] * 4
        assert len(redis.told(prefix)) == 1

    def test_what_code_does_in_one_reaches_the_others_within_a_second(
        self, sites: list[Site]
    ) -> None:
        for move, answer in [("force_open", "circuit_open"), ("reset", "answered")]:
            sites[0].do("move", move)
            assert sites[0].chat() == answer
            started = time.monotonic()
            for site in sites[1:]:
                site.await_(answer)
            assert time.monotonic() - started < 1
        assert circuits(sites) == [("closed", 2, "auto")] * 2

    def test_another_prefix_is_another_sites_and_stays_untouched(
        self, sites: list[Site], fake_ollama: FakeOllama, redis: RedisServer
    ) -> None:
        theirs = uuid4().hex
        begin(sites[1:], fake_ollama, theirs)
        open_at(sites[0], fake_ollama)
        answers, _ = sites[1].do("keep", 0.6, 0.02)
        assert [*answers] == ["answered"]
        assert sites[1].circuit() == ("closed", 0, "auto")
        assert redis.told(theirs) == {}

    def test_a_forked_child_knows_too(self, sites: list[Site], fake_ollama: FakeOllama) -> None:
        sites[1].tell("fork")
        open_at(sites[0], fake_ollama)
        assert sites[1].hear() == "circuit_open"
        sites[1].await_("circuit_open")

    def test_a_store_that_was_emptied_is_told_again(
        self, sites: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
    ) -> None:
        old, new = sites
        open_at(old, fake_ollama)
        redis.do("FLUSHALL")
        answers, _ = old.do("keep", 0.55, 0.02)
        assert [*answers] == ["circuit_open"]
        new.begin(fake_ollama.url, CACHE_PREFIX=prefix)
        assert new.chat() == "circuit_open"
        assert circuits(sites) == [("open", 1, "auto")] * 2


class TestOneProbe:
    def test_is_made_by_four_processes_together_in_each_of_20_rounds(
        self, four: list[Site], fake_ollama: FakeOllama, redis: RedisServer, prefix: str
    ) -> None:
        probe(four, fake_ollama, redis, prefix, rounds=20)

    def test_that_is_killed_lets_others_probe_when_its_lease_ends(
        self, redis: RedisServer, sites: list[Site], fake_ollama: FakeOllama, prefix: str
    ) -> None:
        others = sites
        doomed = Site(redis.cache)
        all_do([*others, doomed], "grace", 0.2)
        quick = {"TIMEOUT": 0.4, "OPEN_SECONDS": 0.1, "RECOVERY_TIMEOUT": 0.1}
        begin([*others, doomed], fake_ollama, prefix, **quick)
        open_at(doomed, fake_ollama)
        for site in others:
            site.await_("circuit_open")
        fake_ollama.misbehave(faults.BlackHole())
        doomed.tell("persist")
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        doomed.kill()
        fake_ollama.behave()
        sent = len(fake_ollama.chats)
        took = others[0].await_("answered")
        others[1].await_("answered")
        all_do(others, "grace", 5.0)
        assert 0.3 < took < 0.6 + 0.5, "its lease, and a reading"
        assert len(fake_ollama.chats) - sent == 2
        assert doomed.said == ""


class TestRedis:
    def test_that_is_killed_fails_no_call_and_delays_one_of_each_process_by_50_ms(
        self, sites: list[Site], redis: RedisServer
    ) -> None:
        for site in sites:
            site.tell("keep", 1.2, 0.005)
        time.sleep(0.3)
        redis.kill()
        heard = [site.hear() for site in sites]
        redis.start()
        assert_one_is_late(heard)

    def test_that_hangs_fails_no_call_and_delays_one_of_each_process_by_50_ms(
        self, sites: list[Site], redis: RedisServer
    ) -> None:
        for site in sites:
            site.tell("keep", 1.2, 0.005)
        time.sleep(0.3)
        redis.freeze()
        heard = [site.hear() for site in sites]
        redis.thaw()
        assert_one_is_late(heard)

    def test_is_read_twice_a_second_by_each_process_and_never_written_on_success(
        self, sites: list[Site], redis: RedisServer
    ) -> None:
        redis.do("CONFIG", "RESETSTAT")
        heard = all_do(sites, "keep", 1.2, 0.001)
        commands = redis.commands()
        assert min(Counter(answers)["answered"] for answers, _ in heard) > 20
        assert 2 <= commands.pop("mget") <= 2 * 3
        assert not commands.keys() & {"set", "get", "expire", "del"}, commands


def assert_one_is_late(heard: list[Any]) -> None:
    for answers, waits in heard:
        assert [*answers] == ["answered"]
        assert len([wait for wait in waits if wait > PATIENCE / 2]) <= 1
        assert max(waits) < PATIENCE + SLACK


def fail_at_once(sites: list[Site], server: FakeOllama, calls: int) -> Counter[str]:
    """Let so many calls of each site be under way, and then fail together."""
    server.misbehave(faults.BlackHole())
    for site in sites:
        site.tell("crowd", calls)
    server.wait_for(lambda found: found.in_flight == len(sites) * calls, timeout=20)
    server.refuse()
    return sum((Counter(site.hear()) for site in sites), Counter())


def probe(
    sites: list[Site], server: FakeOllama, redis: RedisServer, prefix: str, *, rounds: int
) -> None:
    """Let all sites call a server that fails until it was probed so often, and once each time.

    Every request that reaches it is a probe, after which there is one more opening.
    """
    begin(sites, server, prefix, OPEN_SECONDS=0.05, RECOVERY_TIMEOUT=0.05)
    fail_at_once(sites, server, 5)
    server.behave()
    server.misbehave(faults.unavailable())
    server.listen()
    before = len(server.chats)
    answers: Counter[str] = Counter()
    while answers["upstream_failed"] < rounds:
        for told, _ in all_do(sites, "keep", 0.3, 0.002):
            answers.update(told)
    openings = [told for told in redis.told(prefix).values() if told.state == "open"]
    assert {*answers} == {"circuit_open", "upstream_failed"}
    assert answers["upstream_failed"] == len(server.chats) - before == len(openings) - 1


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}


@pytest.fixture
def postgres() -> Iterator[Database]:
    with empty_postgres() as database:
        yield database


def test_a_database_is_a_store_as_well_outside_of_the_transactions_of_callers(
    postgres: Database, fake_ollama: FakeOllama, prefix: str
) -> None:
    share_through(postgres, fake_ollama, prefix, within=1)


def test_so_is_sqlite_as_soon_as_it_lets_us_write(
    sqlite: Database, fake_ollama: FakeOllama, prefix: str
) -> None:
    share_through(sqlite, fake_ollama, prefix, within=2)


def share_through(database: Database, server: FakeOllama, prefix: str, *, within: float) -> None:
    """Let a site open its circuit in a transaction that is taken back; another is to know."""
    with (
        Site(DATABASE_CACHE, database, BUSY) as here,
        Site(DATABASE_CACHE, database, BUSY) as there,
    ):
        here.do("createcachetable", TABLE)
        begin([here, there], server, prefix)
        answers, waits = here.do("atomic", 20)
        assert answers == ["answered"] * 20
        server.refuse()
        answers, more = here.do("atomic", 6)
        server.listen()
        assert answers == ["connection_failed"] * 5 + ["circuit_open"]
        for wait in (*waits, *more):
            assert wait < PATIENCE + SLACK
        assert there.await_("circuit_open") < within
        assert here.circuit() == there.circuit() == ("open", 1, "auto")


def test_a_caller_who_keeps_sqlite_for_itself_probes_alone(
    sqlite: Database, fake_ollama: FakeOllama, prefix: str
) -> None:
    with Site(DATABASE_CACHE, sqlite, BUSY) as site:
        site.do("createcachetable", TABLE)
        begin([site], fake_ollama, prefix, OPEN_SECONDS=0.1, RECOVERY_TIMEOUT=0.1)
        open_at(site, fake_ollama)
        answers, waits = site.do("atomic", 2, 0.1)
        assert answers == ["answered"] * 2
        assert max(waits, default=0) < PATIENCE + SLACK
        assert site.chat() == "answered"
    assert BUSY in site.said
