"""Modes in several processes with one database: SQLite in a file, and PostgreSQL."""

from __future__ import annotations

import os
import socket
import time
import uuid
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.modesite import BOUND, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ollama_bridge.testing import FakeOllama

pytestmark = pytest.mark.soak  # they wait for what takes seconds, in processes of their own

Database = dict[str, Any]
SOON = 0.05
POSTGRES = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": os.environ.get("PGHOST", "127.0.0.1"),
    "PORT": os.environ.get("PGPORT", "5432"),
    "USER": os.environ.get("PGUSER", "postgres"),
    "PASSWORD": os.environ.get("PGPASSWORD", ""),
}


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}


@pytest.fixture
def postgres() -> Iterator[Database]:
    """A database of its own on the PostgreSQL of this machine; CI must have one."""
    try:
        server = _connected()
    except Exception as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL here (PGHOST, PGPORT, PGUSER), or no psycopg: {error}")
    name = f"ollama_bridge_test_{uuid.uuid4().hex}"
    try:
        server.execute(f'CREATE DATABASE "{name}"')
        yield {**POSTGRES, "NAME": name}
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        server.close()


def _connected() -> Any:
    psycopg: Any = import_module("psycopg")  # it may be missing
    return psycopg.connect(
        host=POSTGRES["HOST"],
        port=POSTGRES["PORT"],
        user=POSTGRES["USER"],
        password=POSTGRES["PASSWORD"],
        dbname="postgres",
        connect_timeout=5,
        autocommit=True,
    )


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(request.param)
    return found


def test_a_mode_is_obeyed_here_at_once_elsewhere_within_5_seconds_and_after_a_restart(
    database: Database, fake_ollama: FakeOllama, say: Callable[[str], None]
) -> None:
    with Site(database, fake_ollama.url) as here, Site(database, fake_ollama.url) as there:
        here.do("migrate")
        assert (here.do("chat"), there.do("chat")) == ("answered", "answered")
        here.do("store", "forced_open")
        assert here.do("chat") == "circuit_open"
        took = there.await_("circuit_open", "chat")
        say(f"a mode reached another process after {took:.1f} s ({database['ENGINE']})")
    with Site(database, fake_ollama.url) as restarted:
        assert restarted.do("chat") == "circuit_open"
        restarted.do("store", "auto")
        assert restarted.do("chat") == "answered"
    assert (here.said, there.said, restarted.said) == ("", "", "")


def test_a_reset_closes_the_circuits_of_other_processes(
    database: Database, fake_ollama: FakeOllama
) -> None:
    with (
        Site(database, fake_ollama.url) as here,
        Site(database, fake_ollama.url, every=SOON) as there,
    ):
        here.do("migrate")
        fake_ollama.refuse()
        there.await_("circuit_open", "chat")
        fake_ollama.listen()
        assert there.do("chat") == "circuit_open"
        here.do("store", "auto")
        there.await_("answered", "chat")


def test_before_the_tables_exist_calls_are_made_and_afterwards_modes_obeyed(
    database: Database, fake_ollama: FakeOllama
) -> None:
    with Site(database, fake_ollama.url, every=SOON) as site:
        assert site.do("chat") == "answered"
        with Site(database, fake_ollama.url) as other:
            other.do("migrate")
            assert site.do("chat") == "answered"
            other.do("store", "forced_open")
        site.await_("circuit_open", "chat")
    for line in site.said.splitlines():
        assert "cooldown_server" in line, "the moment between our two migrations"


def test_a_forked_child_obeys_too(database: Database, fake_ollama: FakeOllama) -> None:
    with Site(database, fake_ollama.url, every=SOON) as site:
        site.do("migrate")
        assert site.do("chat") == "answered"
        assert site.do("fork", "circuit_open") == "answered, then circuit_open"
        assert site.do("chat") == "circuit_open"
        site.do("store", "auto")
        assert site.do("chat") == "answered"


def test_a_database_that_comes_and_goes_is_told_once_each_time_and_fails_no_call(
    tmp_path: Path, fake_ollama: FakeOllama
) -> None:
    folder = tmp_path / "mounted"
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "site.sqlite3")}
    with (
        Site(database, fake_ollama.url, every=SOON) as site,
        Site(database, fake_ollama.url) as other,
    ):
        assert site.do("chat") == "answered"
        site.do("outlast", "5")
        assert site.do("chat") == "answered"
        folder.mkdir()
        other.do("migrate")
        other.do("store", "forced_open")
        site.await_("circuit_open", "chat")
        folder.rename(tmp_path / "unmounted")
        site.do("outlast", "5")
        assert site.do("chat") == "circuit_open"
        (tmp_path / "unmounted").rename(folder)
        other.do("store", "auto")
        site.await_("answered", "chat")
    lines = site.said.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("Cannot read the modes and cooldowns of endpoints, going on with")
        assert line.endswith("OperationalError: unable to open database file")


def test_a_database_that_is_read_only_is_enough(sqlite: Database, fake_ollama: FakeOllama) -> None:
    read_only = {**sqlite, "NAME": f"file:{sqlite['NAME']}?mode=ro", "OPTIONS": {"uri": True}}
    with Site(sqlite, fake_ollama.url) as writer:
        writer.do("migrate")
        with Site(read_only, fake_ollama.url, every=SOON) as site:
            assert site.do("chat") == "answered"
            writer.do("store", "forced_open")
            site.await_("circuit_open", "chat")
    assert site.said == ""


def test_no_connection_stays_open_between_looks(
    postgres: Database, fake_ollama: FakeOllama
) -> None:
    counting = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    with Site(postgres, fake_ollama.url) as other:
        other.do("migrate")
    with Site(postgres, fake_ollama.url) as site, _connected() as server:
        assert site.do("chat") == "answered"
        until = time.monotonic() + BOUND
        while server.execute(counting, [postgres["NAME"]]).fetchone() != (0,):
            assert time.monotonic() < until
            time.sleep(0.02)


def test_a_database_that_hangs_delays_the_first_call_only_and_shortly(
    postgres: Database, fake_ollama: FakeOllama
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = {**postgres, "HOST": "127.0.0.1", "PORT": str(silent.getsockname()[1])}
        with Site(hanging, fake_ollama.url) as site:
            assert site.do("chat") == "answered"
            first = float(site.do("seconds"))
            assert site.do("chat") == "answered"
            second = float(site.do("seconds"))
            closing = float(site.do("close"))
    assert 0.5 <= first < 3
    assert second < 0.5
    assert closing < 3
    assert site.said == ""
