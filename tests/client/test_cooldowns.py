"""What is kept of cooldowns and calls, and how, in one process."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import OperationalError, connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from ollama_bridge import QuotaExhausted, RateLimited, conf, ollama_client
from ollama_bridge.circuits import CooldownFacts
from ollama_bridge.core.events import CallAnswered, CooldownBegan, CooldownEnded, Event
from ollama_bridge.core.quota import Quota
from ollama_bridge.core.types import Usage
from ollama_bridge.keeping import Keeper, keeper
from ollama_bridge.keeping.ledger import NOISE, Counts, End, Ledger, Over
from ollama_bridge.keeping.notes import Note, Notes, Tally
from ollama_bridge.models import EndpointState, Mode, Stored
from ollama_bridge.plans import plan_for
from ollama_bridge.testing import FakeOllama, faults

from .governed import SERVER, FakeGoverned

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker, Settings

QUESTION = "What is water?"
USED_UP, PAUSE = "quota_exhausted", "rate_limited"
ANSWERED = CallAnswered(0.1, Usage(), "default", "llama3.2", "")


def after(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def began(seconds: float, code: str = USED_UP, *, is_told: bool = False) -> CooldownBegan:
    return CooldownBegan("default", code, seconds, is_told)


def ended(*, is_told: bool = False) -> CooldownEnded:
    return CooldownEnded("default", is_told)


class TestNotes:
    def test_are_of_cooldowns_that_are_worth_it(self) -> None:
        notes = Notes([])
        of_interest: list[Event] = [began(10), began(1, is_told=True), ended(), ended(is_told=True)]
        stored = ended()._replace(is_stored=True)
        events: list[Event] = [began(9.9), ANSWERED, stored, *of_interest]
        for event in events:
            notes(event)
        assert [note.event for note in notes.wait(0)] == of_interest

    def test_say_when(self) -> None:
        notes = Notes([])
        notes(began(60))
        (note,) = notes.wait(0)
        assert note.at == pytest.approx(time.time(), abs=5)

    def test_are_waited_for_no_longer_than_said(self) -> None:
        assert Notes([]).wait(0.01) == []

    def test_wake_who_waits(self) -> None:
        notes = Notes([])
        threading.Timer(0.02, notes, [began(60)]).start()
        assert len(notes.wait(10)) == 1
        notes.wake()
        assert notes.wait(10) == []

    def test_count_the_answers_of_endpoints_that_have_a_limit(self) -> None:
        notes = Notes(["default"])
        for event in (ANSWERED, ANSWERED, ANSWERED._replace(endpoint="cloud")):
            notes(event)
        assert notes.wait(0) == [], "nobody is woken"
        assert notes.answered() == {"default": 2}
        assert notes.answered() == {"default": 0}


def test_a_tally_counts_each_of_many_at_once() -> None:
    tally, together = Tally(), threading.Barrier(9)
    found: list[int] = []

    def add() -> None:
        together.wait()
        for _ in range(2000):
            tally.add()

    adders = [threading.Thread(target=add) for _ in range(8)]
    for adder in adders:
        adder.start()
    together.wait()
    while any(adder.is_alive() for adder in adders):
        found.append(tally.take())
    found.append(tally.take())
    assert sum(found) == 8 * 2000


class TestTheLedger:
    NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def enter(self, ledger: Ledger, event: Any, stored: datetime | None = None) -> bool:
        return ledger.enter(Note(event, self.NOW.timestamp()), stored)

    def later(self, seconds: float) -> datetime:
        return self.NOW + timedelta(seconds=seconds)

    def over(self, seconds: float) -> Over:
        return Over(self.later(seconds), self.NOW + NOISE)

    def test_owes_what_began_here(self) -> None:
        ledger = Ledger()
        assert self.enter(ledger, began(60, PAUSE))
        assert ledger.debts["default"].begun == End(self.later(60), PAUSE, self.NOW)

    def test_owes_the_longest_of_several_and_the_worst_of_their_reasons(self) -> None:
        ledger = Ledger()
        for event in (began(60), began(90, PAUSE), began(30, PAUSE)):
            self.enter(ledger, event)
        assert ledger.debts["default"].begun == End(self.later(90), USED_UP, self.NOW)

    def test_owes_the_reason_where_only_that_is_new(self) -> None:
        ledger = Ledger()
        self.enter(ledger, began(60, PAUSE, is_told=True))
        assert self.enter(ledger, began(60, USED_UP))
        assert ledger.debts["default"].begun == End(self.later(60), USED_UP, self.NOW)

    @pytest.mark.parametrize("by_table", [False, True])
    def test_owes_nothing_that_is_known_from_elsewhere(self, by_table: bool) -> None:
        ledger = Ledger()
        if by_table:
            ledger.follow("default", End(self.later(60), USED_UP, self.NOW))
        else:
            assert not self.enter(ledger, began(60, is_told=True))
        assert not self.enter(ledger, began(60.3))
        assert not self.enter(ledger, began(50, PAUSE))
        assert ledger.debts == {}
        assert self.enter(ledger, began(61))

    def test_owes_the_end_of_what_began(self) -> None:
        ledger = Ledger()
        self.enter(ledger, began(60))
        assert self.enter(ledger, ended())
        debt = ledger.debts["default"]
        assert (debt.over, debt.begun) == (self.over(60), None)

    @pytest.mark.parametrize("seconds", [3600, -3600])
    def test_owes_the_end_of_what_is_stored(self, seconds: float) -> None:
        ledger = Ledger()
        assert self.enter(ledger, ended(), self.later(seconds))
        assert ledger.debts["default"].over == self.over(max(0.0, seconds))

    def test_owes_nothing_any_more_of_what_is_stored_no_more(self) -> None:
        ledger = Ledger()
        self.enter(ledger, began(600))
        ledger.follow_end("default")
        assert ledger.debts == {}
        assert not self.enter(ledger, ended(is_told=True))

    def test_owes_an_end_and_then_a_beginning(self) -> None:
        ledger = Ledger()
        for event in (began(600), ended(), began(60, PAUSE)):
            self.enter(ledger, event)
        debt = ledger.debts["default"]
        assert (debt.over, debt.begun) == (self.over(600), End(self.later(60), PAUSE, self.NOW))

    def test_owes_no_end_of_what_was_too_short_to_be_stored(self) -> None:
        ledger = Ledger()
        assert not self.enter(ledger, ended())
        assert ledger.debts == {}

    def test_owes_the_end_that_another_process_told_only_of_what_began_here(self) -> None:
        ledger = Ledger()
        self.enter(ledger, began(60, is_told=True))
        assert not self.enter(ledger, ended(is_told=True), self.later(60))
        self.enter(ledger, began(60))
        assert self.enter(ledger, ended(is_told=True))
        assert ledger.debts["default"].over == self.over(60)


class TestCounts:
    TODAY = date(2026, 1, 31)

    def test_add_up_with_what_is_stored(self) -> None:
        counts = Counts()
        counts.add({"default": 2, "cloud": 0}, self.TODAY)
        counts.add({"default": 3}, self.TODAY)
        assert counts.owed == {"default": 5}
        assert counts.used(Stored("default", used=7, used_on=self.TODAY)) == 12
        assert counts.used(Stored("cloud", used=7, used_on=self.TODAY)) == 7

    def test_begin_anew_each_day(self) -> None:
        counts = Counts()
        counts.add({"default": 2}, self.TODAY)
        counts.add({"default": 1}, self.TODAY + timedelta(days=1))
        assert counts.used(Stored("default", used=7, used_on=self.TODAY)) == 1


def keep(governed: Any) -> Keeper:
    """Return what keeps it, as it is after its first look."""
    found = Keeper(governed)
    found.look()
    found._follow_from_now_on()
    return found


def store(seconds: float, code: str = USED_UP, server: str = SERVER) -> None:
    EndpointState.objects.begin_cooldown("default", server, after(seconds), code)


def row() -> Stored:
    return EndpointState.objects.stored().get("default", Stored("default"))


def clear() -> None:
    EndpointState.objects.end_cooldown("default", SERVER, after(10**7), after(0))


@pytest.mark.django_db
class TestTheFirstLook:
    def test_begins_what_is_stored_with_the_time_that_is_left(self) -> None:
        governed = FakeGoverned()
        store(100)
        keep(governed)
        assert governed.moves == [f"{USED_UP} for 100 s"]
        assert governed.heard == [], "the thread waits for others, a look does not"

    def test_lets_the_next_call_try_a_used_up_allowance_whose_time_is_over(self) -> None:
        governed = FakeGoverned()
        store(-3600)
        keep(governed)
        assert governed.moves == [f"{USED_UP} for 0 s"]

    def test_passes_over_a_pause_whose_time_is_over(self) -> None:
        governed = FakeGoverned()
        store(-1, PAUSE)
        keep(governed)
        assert governed.moves == []

    def test_leaves_alone_what_other_processes_have_told_of(self) -> None:
        governed = FakeGoverned()
        governed.facts = CooldownFacts(seconds=0.0, code="", generation=2)
        store(100)
        keep(governed)
        assert governed.moves == []

    def test_passes_over_the_cooldown_of_another_server_of_that_name(self) -> None:
        governed = FakeGoverned()
        store(100, server="another")
        keep(governed)
        assert governed.moves == []

    def test_does_not_take_a_row_without_an_operator_s_change_for_a_reset(self) -> None:
        governed = FakeGoverned()
        found = keep(governed)
        store(100)
        found.look()
        assert governed.moves == [f"{USED_UP} for 100 s"]


@pytest.mark.django_db
def test_who_watches_the_log_and_fails_does_not_end_the_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a filter of the site")

    store(100)
    monkeypatch.setattr(FakeGoverned, "cool_down", fail)
    found = keep(FakeGoverned())
    assert "ValueError: a filter of the site" in caplog.text
    assert found._follows_cooldowns


@pytest.mark.django_db
def test_a_look_that_hangs_keeps_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 0.01)
    governed = FakeGoverned()
    found = keep(governed)
    store(100)
    with found._looking:
        found.look()
    assert governed.moves == []
    found.look()
    assert governed.moves == [f"{USED_UP} for 100 s"]


@pytest.mark.django_db
class TestALaterLook:
    def test_begins_and_ends_what_did_so_elsewhere(self) -> None:
        governed = FakeGoverned()
        found = keep(governed)
        changes: list[Callable[[], None]] = [lambda: store(100), clear, lambda: store(60, PAUSE)]
        for change in changes:
            change()
            found.look()
            found.look()
        assert governed.moves == [f"{USED_UP} for 100 s", "ended", f"{PAUSE} for 60 s"]

    def test_ends_what_was_in_a_row_that_is_gone(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        EndpointState.objects.all().delete()
        found.look()
        assert governed.moves[1:] == ["ended"]

    def test_begins_only_what_is_longer_or_worse_than_what_is_known(self) -> None:
        governed = FakeGoverned()
        found = keep(governed)
        governed.facts = CooldownFacts(seconds=90.0, code=PAUSE, generation=1)
        store(90.2, PAUSE)
        found.look()
        assert governed.moves == []
        store(60, USED_UP)
        found.look()
        assert governed.moves == [f"{USED_UP} for 90 s"]

    def test_does_not_end_a_longer_one_that_began_here_meanwhile(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        governed.facts = CooldownFacts(seconds=900.0, code=USED_UP, generation=2)
        clear()
        found.look()
        assert governed.moves == [f"{USED_UP} for 100 s"]

    def test_ends_a_cooldown_by_a_reset_and_begins_what_came_after_it(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        EndpointState.objects.change("default", Mode.AUTO)
        store(60, PAUSE)
        governed.facts = CooldownFacts(seconds=0.0, code="", generation=2)  # as a reset does
        found.look()
        assert governed.moves[1:] == ["reset", f"{PAUSE} for 60 s"]


@pytest.fixture
def _lasting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the database of the tests pass for one that outlives them."""
    monkeypatch.setattr(keeper, "is_lasting", lambda: True)


@pytest.mark.usefixtures("db", "_lasting")
class TestStoring:
    def tell(self, found: Keeper, *events: Event) -> None:
        for event in events:
            found._notes(event)
        found._hear(0)
        found.look()
        found._keep()

    def test_of_what_began(self) -> None:
        found = keep(FakeGoverned())
        self.tell(found, began(60))
        assert row().code == USED_UP
        assert row().until == pytest.approx(after(60), abs=timedelta(seconds=5))
        assert found._ledger.debts == {}

    def test_never_makes_it_shorter(self) -> None:
        found = keep(FakeGoverned())
        store(900)
        before = row()
        self.tell(found, began(60, PAUSE))
        assert row()._replace(since=before.since) == before

    def test_clears_what_ended_here(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        self.tell(found, ended())
        assert row() == Stored("default")

    def test_keeps_what_is_newer_than_what_ended_here(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        store(900)
        self.tell(found, ended())
        assert row().until is not None

    def test_keeps_what_was_said_after_that_end(self) -> None:
        store(100)
        found = keep(FakeGoverned())
        found._notes(ended())
        found._hear(0)
        clear()
        EndpointState.objects.begin_cooldown("default", SERVER, after(90), USED_UP, after(2))
        found.look()
        found._keep()
        assert row().until is not None

    def test_says_when_it_was_said_again_so_that_an_end_before_that_does_not_count(self) -> None:
        until, first = after(3600), after(-60)
        EndpointState.objects.begin_cooldown("default", SERVER, until, USED_UP, first)
        ends, begins = keep(FakeGoverned()), keep(FakeGoverned())
        ends._ledger.enter(Note(ended(), after(-2).timestamp()), until)
        begins._ledger.enter(Note(ended(is_told=True), after(-1).timestamp()), until)
        self.tell(begins, began((until - after(0)).total_seconds()))
        ends._keep()
        assert row().until is not None
        assert row().since == pytest.approx(after(0), abs=timedelta(seconds=1))

    def test_never_says_that_it_was_said_earlier(self) -> None:
        since = after(0)
        for moment in (since, after(-30)):
            EndpointState.objects.begin_cooldown("default", SERVER, after(60), PAUSE, moment)
        assert row().since == since
        EndpointState.objects.begin_cooldown("default", "another", after(60), PAUSE, after(-30))
        assert row().since == pytest.approx(after(-30), abs=timedelta(seconds=1))

    def test_owes_no_end_for_what_others_have_ended(self) -> None:
        governed = FakeGoverned()
        store(100)
        found = keep(governed)
        self.tell(found, began(200))
        clear()
        found.look()
        store(100)
        self.tell(found, ended(is_told=True))
        assert governed.moves[-2:] == ["ended", f"{USED_UP} for 100 s"]
        assert row().until is not None

    def test_keeps_what_is_another_server_s(self) -> None:
        store(100, server="another")
        found = keep(FakeGoverned())
        self.tell(found, began(60), ended())
        assert row().until is not None

    def test_that_fails_is_told_once_and_done_when_it_can_be(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OperationalError("database is locked")

        found = keep(FakeGoverned(limit=10))
        caplog.set_level(logging.INFO, "ollama_bridge.keeping")
        with monkeypatch.context() as patch:
            patch.setattr(type(EndpointState.objects), "_update", fail)
            self.tell(found, began(60), ANSWERED)
            self.tell(found)
        assert row() == Stored("default")
        self.tell(found)
        assert row().code == USED_UP
        assert row().used == 1
        told, relieved = [record.getMessage() for record in caplog.records]
        assert told.startswith("Cannot store cooldowns and counts of endpoints, trying again ")
        assert told.endswith("OperationalError: database is locked")
        assert relieved == "Cooldowns and counts of endpoints are stored again"

    def test_waits_until_the_table_can_be_read(self) -> None:
        found = Keeper(FakeGoverned())  # type: ignore[arg-type]  # it is like one
        found._notes(began(60))
        found._hear(0)
        found._keep()
        assert row() == Stored("default")
        found.look()
        found._keep()
        assert row().code == USED_UP

    def test_counts_for_all_processes_and_learns_what_they_have_used(self) -> None:
        governed = FakeGoverned(limit=10)
        found = keep(governed)
        today = datetime.now(UTC).date()
        EndpointState.objects.add_calls("default", 3, today)
        self.tell(found, ANSWERED, ANSWERED)
        self.tell(found)
        assert row().used == 5
        midnight = datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=1)
        assert governed.quota == Quota(
            "counted", 0.5, midnight.timestamp(), limit=10, unit="requests"
        )

    def test_of_counts_writes_nothing_where_nothing_was_answered(self) -> None:
        governed = FakeGoverned(limit=10)
        self.tell(keep(governed))
        assert not EndpointState.objects.exists()
        assert governed.quota is not None
        assert governed.quota.used == 0


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.django_db
def test_moments_are_in_utc_whatever_zone_the_project_has(settings: Settings, use_tz: bool) -> None:
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "America/Chicago"
    until = datetime(2026, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)
    since = until - timedelta(hours=1)
    EndpointState.objects.begin_cooldown("default", SERVER, until, USED_UP, since)
    assert (row().until, row().since) == (until, since)
    with connection.cursor() as cursor:
        cursor.execute("SELECT cooldown_until FROM ollama_bridge_endpointstate")
        assert str(cursor.fetchone()[0]).startswith("2026-01-31 12:30:15.123456")
    second = timedelta(seconds=1)
    for wrong in ((until - second, since), (until, since - second)):
        EndpointState.objects.end_cooldown("default", SERVER, *wrong)
        assert row().until == until
    EndpointState.objects.end_cooldown("default", SERVER, until, since)
    assert row().until is None


@pytest.fixture
def configure(settings: Settings, fake_ollama: FakeOllama) -> Callable[..., FakeOllama]:
    """Let the singleton talk to the fake server, whose allowance is used up."""

    def configure(**bridge: object) -> FakeOllama:
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "MAX_RETRIES": 0, **bridge}
        fake_ollama.misbehave(faults.usage_limit())
        return fake_ollama

    return configure


def refused(times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(QuotaExhausted):
            ollama_client.chat(QUESTION)


class TestCalls:
    """No call of a cooldown uses the database, in whatever state that is."""

    def test_where_tests_forbid_the_database(
        self, configure: Callable[..., FakeOllama], caplog: pytest.LogCaptureFixture
    ) -> None:
        server = configure()
        refused(5)
        ollama_client.circuit_breaker.reset()
        server.behave()
        assert ollama_client.chat(QUESTION)
        ollama_client.close()
        assert len(server.chats) == 2
        kept = [record for record in caplog.records if record.name == "ollama_bridge.keeping"]
        assert all(record.levelno == logging.DEBUG for record in kept), "tests need no alarm"

    @pytest.mark.django_db
    def test_in_a_transaction(self, configure: Callable[..., FakeOllama]) -> None:
        server = configure()
        with transaction.atomic(), connection.execute_wrapper(_no_query):
            refused(5)
        assert not connection.needs_rollback
        assert len(server.chats) == 1

    @pytest.mark.django_db
    def test_where_each_request_is_a_transaction(
        self, configure: Callable[..., FakeOllama], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = configure()
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", value=True)
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
            codes = [Client().get("/ask").content for _ in range(3)]
        assert codes == [USED_UP.encode()] * 3
        assert len(server.chats) == 1

    async def _codes(self) -> list[bytes]:
        return [(await AsyncClient().get("/aask")).content for _ in range(3)]

    def test_in_async_views(self, configure: Callable[..., FakeOllama]) -> None:
        server = configure()
        with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[]):
            assert asyncio.run(self._codes()) == [USED_UP.encode()] * 3
        assert len(server.chats) == 1


def _no_query(*_: object) -> None:
    raise AssertionError("a call has used the database")


def ask(_: HttpRequest) -> HttpResponse:
    try:
        ollama_client.chat(QUESTION)
    except RateLimited as error:
        return HttpResponse(error.code)
    return HttpResponse("answered")


async def aask(_: HttpRequest) -> HttpResponse:
    try:
        await ollama_client.achat(QUESTION)
    except RateLimited as error:
        return HttpResponse(error.code)
    return HttpResponse("answered")


urlpatterns = [path("ask", ask), path("aask", aask)]


@pytest.fixture
def cooling(transactional_db: None, settings: Settings, fake_ollama: FakeOllama) -> FakeOllama:
    """The fake server, whose cooldown is stored and has begun here."""
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    store(600, server=plan_for(conf.current()).default.targets[0].endpoint.identity)
    refused(1)
    return fake_ollama


class TestTheClientOfTheProcess:
    def test_begins_with_the_cooldown_that_is_stored(self, cooling: FakeOllama) -> None:
        ollama_client.close()
        refused()
        facts = ollama_client.endpoints["default"]
        assert facts.cooldown_code == USED_UP
        assert facts.cooldown == pytest.approx(600, abs=15)
        assert cooling.requests == []

    def test_keeps_it_over_a_change_of_settings_without_the_database(
        self, cooling: FakeOllama, django_db_blocker: DjangoDbBlocker
    ) -> None:
        with (
            django_db_blocker.block(),
            override_settings(OLLAMA_BRIDGE={"BASE_URL": cooling.url, "TIMEOUT": 5}),
        ):
            refused()
        assert cooling.requests == []

    @pytest.mark.usefixtures("cooling")
    def test_does_not_take_it_to_another_server(self, django_db_blocker: DjangoDbBlocker) -> None:
        with (
            FakeOllama() as moved,
            django_db_blocker.block(),
            override_settings(OLLAMA_BRIDGE={"BASE_URL": moved.url}),
        ):
            assert ollama_client.chat(QUESTION)


@pytest.mark.usefixtures("transactional_db", "_lasting")
def test_what_is_owed_is_stored_when_the_client_is_closed(
    settings: Settings, fake_ollama: FakeOllama
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "QUOTA_LIMIT": 10}
    for _ in range(3):
        assert ollama_client.chat(QUESTION)
    governing: Any = ollama_client._governing
    assert governing._looked.wait(10)
    ollama_client.close()
    assert row().used == 3


@pytest.mark.usefixtures("transactional_db")
def test_nothing_is_stored_in_a_database_that_ends_with_the_process(
    configure: Callable[..., FakeOllama],
) -> None:
    configure()
    refused(1)
    ollama_client.close()
    assert not EndpointState.objects.exists()


def test_nothing_of_a_client_that_is_gone_listens_any_more(
    settings: Settings, fake_ollama: FakeOllama
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    assert ollama_client.chat(QUESTION)
    engine: Any = ollama_client._engine
    assert len(engine.listeners) == 1
    ollama_client.close()
    assert engine.listeners == []


class Stream:
    """Is closed by the collector, as an abandoned stream is, and ends a cooldown then."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.itself = self

    def __del__(self) -> None:
        self.notes(ended())


def test_a_note_may_be_taken_inside_the_collector() -> None:
    notes = Notes(["default"])
    for _ in range(100):
        Stream(notes)
    gc.collect()
    assert len(notes.wait(0)) == 100
