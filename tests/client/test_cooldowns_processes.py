"""Cooldowns in processes that end and begin again: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ollama_bridge.testing import FakeOllama, faults
from tests.client.modesite import Site
from tests.servers.databases import Database, empty_postgres
from tests.state.redisserver import RedisServer

SOON = 0.05
USED_UP, PAUSE = "quota_exhausted", "rate_limited"
pytestmark = pytest.mark.soak  # they wait for what takes seconds, in processes of their own

LONG = 600.0  # what COOLDOWN_SECONDS is by itself


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}


@pytest.fixture
def postgres() -> Iterator[Database]:
    with empty_postgres() as database:
        yield database


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database, on each kind in turn."""
    found: Database = request.getfixturevalue(request.param)
    return found


def left(told: str) -> tuple[float, str]:
    seconds, code = told.split()
    return float(seconds), code


def lines(site: Site, start: str) -> list[str]:
    """Return the lines that a process has logged, which begin so."""
    return [line for line in site.said.splitlines() if line.startswith(start)]


def store_one(database: Database, server: FakeOllama, *, retry_after: int | None = None) -> None:
    """Let a process be told that the allowance is used up, store it, and be killed."""
    server.misbehave(faults.usage_limit(retry_after=retry_after))
    with Site(database, server.url) as doomed:
        doomed.do("migrate")
        assert doomed.do("chat") == USED_UP
        doomed.await_("yes", "is-stored", seconds=1)
        doomed.kill()
    server.behave()


def test_a_used_up_allowance_is_left_alone_after_a_restart_too(
    database: Database, fake_ollama: FakeOllama, say: Callable[[str], None]
) -> None:
    fake_ollama.misbehave(faults.usage_limit())
    with Site(database, fake_ollama.url) as doomed:
        doomed.do("migrate")
        assert doomed.do("chat") == USED_UP
        took = doomed.await_("yes", "is-stored", seconds=1)
        say(f"a cooldown was stored after {took * 1000:.0f} ms ({database['ENGINE']})")
        doomed.kill()
    fake_ollama.behave()
    sent = len(fake_ollama.requests)
    with Site(database, fake_ollama.url) as restarted:
        assert restarted.do("chat") == USED_UP
        assert float(restarted.do("seconds")) < 0.6, "the first call waits for the first look"
        seconds, code = left(restarted.do("cooldown"))
        assert code == USED_UP
        assert LONG - 15 < seconds < LONG
        assert restarted.do("chat") == USED_UP
    assert len(fake_ollama.requests) == sent
    told = lines(restarted, "Cooldown: leaving endpoint default alone for ")
    assert not told, "others have said so"


def test_its_end_admits_one_call_however_often_processes_begin(
    database: Database, fake_ollama: FakeOllama
) -> None:
    store_one(database, fake_ollama)
    quick: dict[str, Any] = {"TIMEOUT": 0.7, "FAILURE_THRESHOLD": 100}
    for _ in range(2):  # one that nobody answers proves nothing
        fake_ollama.misbehave(faults.BlackHole())
        sent = len(fake_ollama.chats)
        with Site(database, fake_ollama.url, **quick) as site:
            site.do("age", str(LONG))
            assert json.loads(site.do("crowd", "10")) == {USED_UP: 9, "timeout": 1}
            site.kill()
        assert len(fake_ollama.chats) - sent == 1
    fake_ollama.behave()
    fake_ollama.misbehave(faults.usage_limit())
    sent = len(fake_ollama.chats)
    with Site(database, fake_ollama.url, every=SOON, **quick) as site:
        assert json.loads(site.do("crowd", "10")) == {USED_UP: 10}
        while left(site.do("row"))[0] < LONG - 15:
            pass
        site.kill()
    with Site(database, fake_ollama.url, **quick) as site:
        assert site.do("chat") == USED_UP
        assert len(fake_ollama.chats) - sent == 1
        site.do("age", str(LONG))
    fake_ollama.behave()
    with Site(database, fake_ollama.url, **quick) as site:
        assert site.do("chat") == "answered"
        site.await_("no", "is-stored", seconds=1)
    with Site(database, fake_ollama.url, **quick) as site:
        assert json.loads(site.do("crowd", "10")) == {"answered": 10}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_its_end_admits_one_call_of_all_processes_that_share_circuits(
    database: Database, fake_ollama: FakeOllama, redis: RedisServer
) -> None:
    """A restart of everything, the cache included, after the end of the cooldown."""
    store_one(database, fake_ollama)
    redis.do("FLUSHALL")
    fake_ollama.misbehave(faults.BlackHole())
    sent = len(fake_ollama.chats)
    quick: dict[str, Any] = {"TIMEOUT": 2, "FAILURE_THRESHOLD": 100}
    with (
        Site(database, fake_ollama.url, cache=redis.cache, **quick) as one,
        Site(database, fake_ollama.url, cache=redis.cache, **quick) as other,
    ):
        one.do("age", str(LONG))
        one.tell("crowd", "10")
        other.tell("crowd", "10")
        told = Counter(json.loads(one.hear())) + Counter(json.loads(other.hear()))
    assert len(fake_ollama.chats) - sent == 1
    assert told["timeout"] == 1
    assert {*told} <= {"timeout", USED_UP, "circuit_open"}


def test_another_process_that_shares_nothing_follows_within_5_seconds_and_out_of_it_too(
    sqlite: Database, fake_ollama: FakeOllama, say: Callable[[str], None]
) -> None:
    with Site(sqlite, fake_ollama.url) as here, Site(sqlite, fake_ollama.url) as there:
        here.do("migrate")
        assert (here.do("chat"), there.do("chat")) == ("answered", "answered")
        fake_ollama.misbehave(faults.usage_limit())
        assert here.do("chat") == USED_UP
        fake_ollama.behave()
        took = there.await_(USED_UP, "chat")
        say(f"a cooldown reached another process after {took:.1f} s")
        here.do("reset")
        assert here.do("chat") == "answered"
        took = there.await_("answered", "chat")
        say(f"its end reached another process after {took:.1f} s")


def test_no_process_shortens_a_cooldown(database: Database, fake_ollama: FakeOllama) -> None:
    with (
        Site(database, fake_ollama.url) as late,
        Site(database, fake_ollama.url) as here,
    ):
        here.do("migrate")
        assert (here.do("chat"), late.do("chat")) == ("answered", "answered")
        fake_ollama.misbehave(faults.usage_limit(retry_after=900))
        assert here.do("chat") == USED_UP
        here.await_("yes", "is-stored")
        fake_ollama.behave()
        fake_ollama.misbehave(faults.rate_limited(retry_after=60))
        late.do("chat")
        late.await_(USED_UP, "chat", seconds=1)
        seconds, code = left(late.do("cooldown"))
        assert code == USED_UP
        late.do("close")
        still, code = left(late.do("row"))
        assert code == USED_UP
        assert still == pytest.approx(seconds, abs=1)
        assert seconds > 880


def test_a_longer_one_is_stored_over_a_shorter_one(
    sqlite: Database, fake_ollama: FakeOllama
) -> None:
    with (
        Site(sqlite, fake_ollama.url) as late,
        Site(sqlite, fake_ollama.url) as here,
    ):
        here.do("migrate")
        assert (here.do("chat"), late.do("chat")) == ("answered", "answered")
        fake_ollama.misbehave(faults.rate_limited(retry_after=60))
        assert here.do("chat") == PAUSE
        here.await_("yes", "is-stored")
        fake_ollama.behave()
        fake_ollama.misbehave(faults.usage_limit(retry_after=900))
        assert late.do("chat") == USED_UP
        while left(late.do("row"))[0] < 880:
            pass
        assert left(late.do("row"))[1] == USED_UP


def test_a_reset_by_code_ends_it_in_the_table_and_in_other_processes(
    database: Database, fake_ollama: FakeOllama
) -> None:
    store_one(database, fake_ollama)
    with (
        Site(database, fake_ollama.url, every=SOON) as here,
        Site(database, fake_ollama.url, every=SOON) as there,
    ):
        assert (here.do("chat"), there.do("chat")) == (USED_UP, USED_UP)
        here.do("reset")
        assert here.do("chat") == "answered"
        here.await_("no", "is-stored", seconds=1)
        there.await_("answered", "chat")
        here.do("outlast", "2")
        assert (here.do("chat"), there.do("chat")) == ("answered", "answered")


def test_a_reset_by_an_operator_ends_it_everywhere(
    database: Database, fake_ollama: FakeOllama
) -> None:
    store_one(database, fake_ollama)
    with (
        Site(database, fake_ollama.url) as here,
        Site(database, fake_ollama.url, every=SOON) as there,
    ):
        assert (here.do("chat"), there.do("chat")) == (USED_UP, USED_UP)
        here.do("store", "auto")
        assert here.do("is-stored") == "no"
        assert here.do("chat") == "answered"
        there.await_("answered", "chat")
    with Site(database, fake_ollama.url) as restarted:
        assert restarted.do("chat") == "answered"


def test_other_changes_of_the_mode_leave_it(sqlite: Database, fake_ollama: FakeOllama) -> None:
    store_one(sqlite, fake_ollama)
    with Site(sqlite, fake_ollama.url) as site:
        site.do("store", "disabled")
        assert site.do("is-stored") == "yes"
        assert site.do("chat") == USED_UP


def test_a_short_pause_is_not_stored_and_a_stored_one_that_is_over_is_none(
    sqlite: Database, fake_ollama: FakeOllama
) -> None:
    with Site(sqlite, fake_ollama.url, every=SOON) as site:
        site.do("migrate")
        fake_ollama.misbehave(faults.rate_limited(retry_after=9))
        assert site.do("chat") == PAUSE
        site.do("outlast", "2")
        assert site.do("is-stored") == "no"
        site.do("reset")
        fake_ollama.behave()
        fake_ollama.misbehave(faults.rate_limited(retry_after=60))
        assert site.do("chat") == PAUSE
        site.await_("yes", "is-stored")
        site.do("age", "60")
        site.kill()
    fake_ollama.behave()
    with Site(sqlite, fake_ollama.url, every=SOON) as restarted:
        assert json.loads(restarted.do("crowd", "10")) == {"answered": 10}


def test_another_server_of_the_same_name_does_not_inherit_it(
    sqlite: Database, fake_ollama: FakeOllama
) -> None:
    store_one(sqlite, fake_ollama)
    with FakeOllama() as moved, Site(sqlite, moved.url, every=SOON) as site:
        assert site.do("chat") == "answered"
        moved.misbehave(faults.usage_limit(retry_after=60))
        assert site.do("chat") == USED_UP
        while left(site.do("row"))[0] > 60:
            pass


def test_a_forked_child_leaves_it_alone_too(sqlite: Database, fake_ollama: FakeOllama) -> None:
    store_one(sqlite, fake_ollama)
    with Site(sqlite, fake_ollama.url, every=SOON) as site:
        assert site.do("chat") == USED_UP
        assert site.do("fork", USED_UP) == f"{USED_UP}, then {USED_UP}"


class TestADatabase:
    def test_without_our_table_delays_nothing_and_gets_it_later(
        self, database: Database, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.usage_limit())
        with Site(database, fake_ollama.url, every=SOON) as site:
            assert (site.do("chat"), site.do("chat")) == (USED_UP, USED_UP)
            with Site(database, fake_ollama.url) as other:
                other.do("migrate")
            site.await_("yes", "is-stored")
        assert len(fake_ollama.chats) == 1
        for line in lines(site, "Cannot"):
            assert "cooldown_server" in line, "the moment between our two migrations"

    def test_of_the_version_before_is_told_once_and_gets_it_later(
        self, sqlite: Database, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.usage_limit())
        with Site(sqlite, fake_ollama.url, every=SOON) as site:
            site.do("migrate", "0001")
            assert (site.do("chat"), site.do("chat")) == (USED_UP, USED_UP)
            with Site(sqlite, fake_ollama.url) as other:
                other.do("migrate")
            site.await_("yes", "is-stored")
        assert len(fake_ollama.chats) == 1
        (told,) = lines(site, "Cannot")
        assert told.startswith("Cannot read the modes and cooldowns of endpoints")
        assert "no such column" in told

    def test_that_nobody_may_write_is_told_once_and_fails_no_call(
        self, sqlite: Database, fake_ollama: FakeOllama
    ) -> None:
        read_only = {**sqlite, "NAME": f"file:{sqlite['NAME']}?mode=ro", "OPTIONS": {"uri": True}}
        with Site(sqlite, fake_ollama.url) as writer:
            writer.do("migrate")
        fake_ollama.misbehave(faults.usage_limit())
        with Site(read_only, fake_ollama.url, every=SOON) as site:
            assert (site.do("chat"), site.do("chat")) == (USED_UP, USED_UP)
            site.do("outlast", "3")
            assert float(site.do("close")) < 2
        (told,) = lines(site, "Cannot")
        assert told.startswith("Cannot store cooldowns and counts of endpoints, ")
        assert told.endswith("OperationalError: attempt to write a readonly database")

    def test_that_a_caller_has_for_itself_delays_no_call_and_gets_it_later(
        self, sqlite: Database, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.usage_limit())
        with Site(sqlite, fake_ollama.url, every=SOON) as site:
            site.do("migrate")
            site.do("is-stored")
            assert site.do("atomic", "0.5") == USED_UP
            assert float(site.do("seconds")) < 1.5, "the first call waits for the first look"
            assert site.do("chat") == USED_UP
            site.await_("yes", "is-stored")


class TestOurOwnCount:
    def test_is_of_all_processes_and_survives_them(
        self, database: Database, fake_ollama: FakeOllama
    ) -> None:
        with (
            Site(database, fake_ollama.url, every=SOON, QUOTA_LIMIT=10) as one,
            Site(database, fake_ollama.url, every=SOON, QUOTA_LIMIT=10) as other,
        ):
            one.do("migrate")
            assert json.loads(one.do("crowd", "3")) == {"answered": 3}
            assert json.loads(other.do("crowd", "2")) == {"answered": 2}
            for site in (one, other):
                site.await_("counted 0.50", "quota")
        with Site(database, fake_ollama.url, QUOTA_LIMIT=10) as restarted:
            restarted.await_("counted 0.50", "quota", seconds=1)

    def test_is_stored_when_a_process_ends(self, sqlite: Database, fake_ollama: FakeOllama) -> None:
        with Site(sqlite, fake_ollama.url, QUOTA_LIMIT=4) as site:
            site.do("migrate")
            assert site.do("chat") == "answered"
        with Site(sqlite, fake_ollama.url, QUOTA_LIMIT=4) as restarted:
            restarted.await_("counted 0.25", "quota", seconds=1)

    def test_is_of_one_process_without_the_table(
        self, sqlite: Database, fake_ollama: FakeOllama
    ) -> None:
        with Site(sqlite, fake_ollama.url, every=SOON, QUOTA_LIMIT=4) as site:
            assert site.do("chat") == "answered"
            site.await_("counted 0.25", "quota")

    def test_writes_nothing_where_there_is_no_limit(
        self, sqlite: Database, fake_ollama: FakeOllama
    ) -> None:
        with Site(sqlite, fake_ollama.url, every=SOON) as site:
            site.do("migrate")
            before = Path(sqlite["NAME"]).read_bytes()
            assert json.loads(site.do("crowd", "10")) == {"answered": 10}
            site.do("outlast", "2")
            assert site.do("quota") == "none"
        assert Path(sqlite["NAME"]).read_bytes() == before
