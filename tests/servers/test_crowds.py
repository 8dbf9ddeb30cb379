"""A thousand who wait, in one worker: neither threads nor database connections wait with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ollama_bridge.testing import FakeOllama

from .crowd import AT_A_TIME, Crowd, site_for_members
from .databases import Database, connections_of, migrated

SIZES = [60, pytest.param(500, marks=pytest.mark.soak)]  # more than there may be threads
FEW_THREADS = 50
NEVER = 600.0
SOON = 0.1


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return migrated(
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "site.sqlite3")}
    )


@pytest.mark.parametrize("each", SIZES)
def test_a_crowd_that_waits_takes_few_threads_and_all_are_answered(
    sqlite: Database, say: Callable[[str], None], each: int
) -> None:
    with FakeOllama(answer="Wet.") as ollama, site_for_members(sqlite, ollama, NEVER) as server:
        crowd = Crowd(server, ollama, streams=each, chats=each)
        seen, answers = crowd.wait(0, server.state)
    assert seen["in_flight"] == 2 * each
    assert seen["threads"] < FEW_THREADS
    assert answers == {
        "200 application/json whole": each,
        "200 text/event-stream whole": each,
    }
    say(f"{2 * each} waiting calls in one uvicorn worker: {seen['threads']} threads")


@pytest.mark.parametrize("each", SIZES)
def test_streams_that_have_begun_take_few_threads_too(
    sqlite: Database, say: Callable[[str], None], each: int
) -> None:
    with FakeOllama(answer="Wet.") as ollama, site_for_members(sqlite, ollama, SOON) as server:
        crowd = Crowd(server, ollama, streams=each, chats=0)
        seen, answers = crowd.wait(each, server.state)
    assert seen["in_flight"] == each
    assert seen["threads"] < FEW_THREADS
    assert answers == {"200 text/event-stream whole": each}
    say(f"{each} silent streams in one uvicorn worker: {seen['threads']} threads")


@pytest.mark.parametrize(
    ("commit_after", "begun"),
    [(NEVER, 0), (SOON, AT_A_TIME)],
    ids=["before-commit", "after-commit"],
)
def test_who_waits_holds_no_database_connection(
    postgres: Database, commit_after: float, begun: int
) -> None:
    with FakeOllama() as ollama, site_for_members(postgres, ollama, commit_after) as server:
        crowd = Crowd(server, ollama, streams=AT_A_TIME, chats=AT_A_TIME)
        seen, answers = crowd.wait(begun, lambda: connections_of(postgres, at_most=0))
    assert seen == 0
    assert answers == {
        "200 application/json whole": AT_A_TIME,
        "200 text/event-stream whole": AT_A_TIME,
    }
