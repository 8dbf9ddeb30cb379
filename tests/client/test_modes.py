"""The modes that operators have stored, as the circuits of this process follow them."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.db import ProgrammingError
from django.test import override_settings

from ollama_bridge import CircuitOpen, OllamaClient, ollama_client
from ollama_bridge.core import breaker
from ollama_bridge.keeping import Keeper
from ollama_bridge.keeping.keeper import EVERY
from ollama_bridge.models import EndpointState, EndpointStates, Mode, Stored

from .governed import FakeGoverned

if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker, Settings

    from ollama_bridge.testing import FakeOllama

QUESTION = "What is water?"
THREAD = "ollama_bridge.keeping"


def keeper_of(governed: Any) -> Keeper:
    return Keeper(governed)


def store(mode: str) -> None:
    EndpointState.objects.change("default", Mode(mode))


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == THREAD]


@pytest.mark.django_db
class TestALook:
    @pytest.mark.parametrize("mode", ["forced_open", "disabled"])
    def test_applies_what_is_stored(self, mode: str) -> None:
        circuit = FakeGoverned()
        store(mode)
        keeper_of(circuit).look()
        assert circuit.moves == [mode]

    def test_leaves_a_circuit_alone_that_was_automatic_at_the_start(self) -> None:
        circuit = FakeGoverned()
        store("auto")
        keeper_of(circuit).look()
        assert circuit.moves == []

    def test_follows_each_change_once(self) -> None:
        circuit = FakeGoverned()
        keeper = keeper_of(circuit)
        keeper.look()
        for mode in ("forced_open", "disabled", "disabled", "auto", "auto"):
            store(mode)
            keeper.look()
            keeper.look()
        assert circuit.moves == ["forced_open", "disabled", "disabled", "reset", "reset"]

    def test_resets_at_the_first_change_of_an_endpoint(self) -> None:
        circuit = FakeGoverned()
        keeper = keeper_of(circuit)
        keeper.look()
        store("auto")
        keeper.look()
        assert circuit.moves == ["reset"]

    def test_resets_even_at_its_first_where_the_change_is_known(self) -> None:
        circuit = FakeGoverned()
        store("auto")
        keeper_of(circuit).look("default")
        assert circuit.moves == ["reset"]

    @pytest.mark.parametrize(
        ("mode", "moves"), [("forced_open", ["forced_open", "reset"]), ("auto", [])]
    )
    def test_takes_a_row_that_is_gone_for_automatic(self, mode: str, moves: list[str]) -> None:
        circuit = FakeGoverned()
        store(mode)
        keeper = keeper_of(circuit)
        keeper.look()
        EndpointState.objects.all().delete()
        keeper.look()
        assert circuit.moves == moves
        store(mode)
        keeper.look()
        assert circuit.moves[2:] == (["forced_open"] if moves else [])

    def test_passes_over_other_endpoints_and_modes_of_newer_versions(self) -> None:
        circuit = FakeGoverned()
        EndpointState.objects.change("elsewhere", Mode.FORCED_OPEN)
        EndpointState.objects.create(name="default", mode="half_shut")
        keeper = keeper_of(circuit)
        keeper.look()
        assert circuit.moves == []
        assert set(keeper.known or ()) == {"default", "elsewhere"}


@pytest.mark.django_db
def test_a_table_that_is_made_in_the_moment_of_a_look_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stored = EndpointStates.stored

    def missing(_: EndpointStates) -> dict[str, Stored]:
        monkeypatch.setattr(EndpointStates, "stored", stored)
        raise ProgrammingError("no such table")

    store("forced_open")
    monkeypatch.setattr(EndpointStates, "stored", missing)
    circuit = FakeGoverned()
    keeper_of(circuit).look()
    assert circuit.moves == ["forced_open"]
    assert not [record for record in caplog.records if "Cannot read" in record.getMessage()]


def test_modes_are_those_of_the_circuits() -> None:
    assert Mode.values == [mode.value for mode in breaker.Mode]


def test_looks_are_frequent_enough_for_what_is_promised() -> None:
    assert EVERY < 5


class Curious(logging.Filter):
    """Asks the client how it is, for each line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.circuit = ollama_client.circuit_breaker.state
        return True


@pytest.mark.django_db
def test_who_formats_a_line_may_ask_the_client_even_while_it_begins(
    settings: Settings, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    curious = Curious()
    caplog.handler.addFilter(curious)
    try:
        with caplog.at_level(logging.INFO, "ollama_bridge"):
            ollama_client.circuit_breaker.force_open()
            store("forced_open")
            ollama_client.mode_changed("default")
            settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, "TIMEOUT": 5}
            assert ollama_client.circuit_breaker.state == "open"
    finally:
        caplog.handler.removeFilter(curious)
    told = [record for record in caplog.records if "initialized" in record.getMessage()]
    assert len(told) == 2


@pytest.fixture
def configured(transactional_db: None, settings: Settings, fake_ollama: FakeOllama) -> FakeOllama:
    """The fake server, which the singleton talks to, in a site whose database is used."""
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
    return fake_ollama


@pytest.mark.usefixtures("configured")
class TestTheClientOfTheProcess:
    def test_obeys_at_its_first_call(self, configured: FakeOllama) -> None:
        store("forced_open")
        with pytest.raises(CircuitOpen, match="An operator has opened it"):
            ollama_client.chat(QUESTION)
        assert configured.chats == []

    def test_obeys_at_once_where_it_is_told(self) -> None:
        assert ollama_client.chat(QUESTION)
        assert ollama_client._governing._looked.wait(10)  # type: ignore[union-attr]  # no signal is public
        store("forced_open")
        ollama_client.mode_changed("default")
        with pytest.raises(CircuitOpen):
            ollama_client.chat(QUESTION)

    def test_needs_not_be_told_before_its_first_call(self) -> None:
        ollama_client.mode_changed("default")
        assert threads() == []

    def test_keeps_a_mode_that_code_has_set(self) -> None:
        store("forced_open")
        assert ollama_client.circuit_breaker.mode == "forced_open"
        ollama_client.circuit_breaker.disable()
        governing: Any = ollama_client._governing
        governing.look()
        assert ollama_client.circuit_breaker.mode == "disabled"

    def test_keeps_modes_over_a_change_of_settings_without_the_database(
        self, configured: FakeOllama, django_db_blocker: DjangoDbBlocker
    ) -> None:
        store("forced_open")
        assert ollama_client.circuit_breaker.mode == "forced_open"
        with (
            django_db_blocker.block(),
            override_settings(OLLAMA_BRIDGE={"BASE_URL": configured.url}),
            pytest.raises(CircuitOpen),
        ):
            ollama_client.chat(QUESTION)

    def test_forgets_modes_when_it_is_closed(self, django_db_blocker: DjangoDbBlocker) -> None:
        store("forced_open")
        assert ollama_client.circuit_breaker.mode == "forced_open"
        ollama_client.close()
        with django_db_blocker.block():
            assert ollama_client.chat(QUESTION)
        ollama_client.close()
        assert ollama_client.circuit_breaker.mode == "forced_open"

    def test_is_the_only_one_that_obeys(self) -> None:
        store("forced_open")
        with OllamaClient() as client:
            assert client.chat(QUESTION)
            assert threads() == []

    def test_tells_since_when_it_runs(self) -> None:
        assert ollama_client.running_since is None
        assert ollama_client.chat(QUESTION)
        assert ollama_client.running_since is not None


class TestTheThread:
    @pytest.mark.usefixtures("configured")
    def test_begins_with_the_first_call_and_ends_with_close(self) -> None:
        assert threads() == []
        ollama_client.chat(QUESTION)
        (thread,) = threads()
        assert thread.daemon
        ollama_client.chat(QUESTION)
        assert threads() == [thread]
        ollama_client.close()
        assert not thread.is_alive()

    def test_is_another_after_a_change_of_settings(
        self, configured: FakeOllama, settings: Settings
    ) -> None:
        ollama_client.chat(QUESTION)
        (first,) = threads()
        settings.OLLAMA_BRIDGE = {"BASE_URL": configured.url}
        assert not first.is_alive()
        ollama_client.chat(QUESTION)
        (second,) = threads()
        assert second is not first

    @pytest.mark.usefixtures("configured")
    def test_of_many_first_callers_is_one(self) -> None:
        together = threading.Barrier(10)

        def call() -> None:
            together.wait()
            ollama_client.circuit_breaker.reset()

        callers = [threading.Thread(target=call) for _ in range(10)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert len(threads()) == 1

    def test_says_nothing_where_tests_forbid_the_database(
        self, settings: Settings, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url}
        with caplog.at_level(logging.DEBUG, logger=THREAD):
            ollama_client.chat(QUESTION)
            assert ollama_client._governing._looked.wait(10)  # type: ignore[union-attr]  # as above
        (record,) = [each for each in caplog.records if each.name == THREAD]
        assert record.levelno == logging.DEBUG
        assert "Database access not allowed" in record.getMessage()


def run(code: str) -> str:
    """Run code in a fresh interpreter whose warnings are errors, and return what it prints."""
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


CHAT = """
import threading
import django
from django.conf import settings
from ollama_bridge import ollama_client
from ollama_bridge.testing import FakeOllama
with FakeOllama() as server:
    settings.configure(OLLAMA_BRIDGE={{"BASE_URL": server.url}}, {0})
    {1}
    ollama_client.chat("What is water?")
    print([thread.name for thread in threading.enumerate() if "keeping" in thread.name])
"""


AT_THE_END = """
import atexit
import django
from django.conf import settings
from ollama_bridge import ollama_client
settings.configure(OLLAMA_BRIDGE={{"BASE_URL": "{0}"}}, INSTALLED_APPS=["ollama_bridge"])
django.setup()
atexit.register(lambda: print(bool(ollama_client.chat("What is water?"))))
"""


def test_a_call_at_the_very_end_of_a_process_is_answered(fake_ollama: FakeOllama) -> None:
    """Python 3.12 and newer start no thread then."""
    assert run(AT_THE_END.format(fake_ollama.url)) == "True\n"


def test_there_is_no_thread_where_the_app_is_not_installed() -> None:
    assert run(CHAT.format("", "")) == "[]\n"


@pytest.mark.parametrize(
    "databases", ["{}", '{"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}']
)
def test_a_site_without_a_database_or_our_table_chats_and_ends_without_a_word(
    databases: str,
) -> None:
    options = f'INSTALLED_APPS=["ollama_bridge"], DATABASES={databases}'
    assert run(CHAT.format(options, "django.setup()")) == "['ollama_bridge.keeping']\n"
