"""What an operator does, and what the very next call meets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from django.contrib.admin.models import LogEntry
from django.db import DatabaseError, connection
from django.test import Client

from ollama_bridge import CircuitOpen, ConnectionFailed, QuotaExhausted, ollama_client
from ollama_bridge.admin import EndpointStateAdmin
from ollama_bridge.core.health import HealthReport
from ollama_bridge.models import EndpointState
from ollama_bridge.testing import FakeAccount, FakeOllama, faults

from .panel import PAGE, Visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

Configure = Callable[..., None]
ACTIONS = ["reset", "force-open", "disable", "check"]
QUESTION = "What is water?"


def logged() -> list[tuple[str, str, str]]:
    """Return who did what to which endpoint, as the admin's log has it."""
    entries = LogEntry.objects.order_by("pk")
    return [(each.user.get_username(), each.object_repr, each.change_message) for each in entries]


def break_circuit(server: FakeOllama) -> None:
    server.refuse()
    for _ in range(5):
        with pytest.raises(ConnectionFailed):
            ollama_client.chat(QUESTION)
    server.listen()


class TestForceOpen:
    def test_refuses_the_very_next_call(self, operator: Visit, fake_ollama: FakeOllama) -> None:
        assert ollama_client.chat(QUESTION)
        said = operator.act("force-open", reason="The graphics card is being changed")
        with pytest.raises(CircuitOpen, match="An operator has opened it"):
            ollama_client.chat(QUESTION)
        assert len(fake_ollama.chats) == 1
        assert said == (
            "Endpoint default: all calls are refused until you reset it. "
            "Other processes follow within 5 seconds."
        )

    def test_is_recorded_with_its_reason(self, operator: Visit) -> None:
        operator.act("force-open", reason="  The card\n is being changed ")
        assert logged() == [
            ("operator", "default", "Forced endpoint default open: The card is being changed")
        ]
        state = EndpointState.objects.get()
        assert (state.name, state.mode, state.revision) == ("default", "forced_open", 1)
        assert state.reason == "The card is being changed"

    def test_needs_no_reason(self, operator: Visit) -> None:
        operator.act("force-open")
        assert logged() == [("operator", "default", "Forced endpoint default open")]

    @pytest.mark.parametrize("reason", ["x" * 201, "a\0b"])
    def test_with_an_impossible_reason_changes_nothing(self, operator: Visit, reason: str) -> None:
        said = operator.act("force-open", reason=reason)
        assert said.startswith("Nothing was changed. Reason: ")
        assert ollama_client.chat(QUESTION)
        assert logged() == []


class TestReset:
    def test_lets_the_very_next_call_through(
        self, operator: Visit, fake_ollama: FakeOllama
    ) -> None:
        break_circuit(fake_ollama)
        with pytest.raises(CircuitOpen):
            ollama_client.chat(QUESTION)
        operator.act("reset")
        assert ollama_client.chat(QUESTION)
        assert logged() == [("operator", "default", "Reset endpoint default")]

    def test_ends_what_was_forced(self, operator: Visit) -> None:
        operator.act("force-open", reason="drill")
        operator.act("reset")
        assert ollama_client.chat(QUESTION)
        state = EndpointState.objects.get()
        assert (state.mode, state.reason, state.revision) == ("auto", "", 2)

    def test_counts_anew_each_time(self, operator: Visit, fake_ollama: FakeOllama) -> None:
        for _ in range(2):
            break_circuit(fake_ollama)
            operator.act("reset")
            assert ollama_client.circuit_breaker.state == "closed"

    def test_ends_a_cooldown_here_and_in_the_table(
        self, operator: Visit, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.usage_limit())
        with pytest.raises(QuotaExhausted):
            ollama_client.chat(QUESTION)
        fake_ollama.behave()
        until = datetime.now(UTC) + timedelta(hours=1)
        EndpointState.objects.begin_cooldown("default", "its address", until, "quota_exhausted")
        said = operator.act("reset")
        assert ollama_client.chat(QUESTION)
        assert EndpointState.objects.get().cooldown_until is None
        assert said.startswith(
            "Endpoint default: circuits are closed and work by themselves, and no cooldown is left."
        )


def test_disable_lets_everything_through_and_counts_nothing(
    operator: Visit, fake_ollama: FakeOllama
) -> None:
    operator.act("disable", reason="It is flaky today")
    fake_ollama.refuse()
    for _ in range(7):
        with pytest.raises(ConnectionFailed):
            ollama_client.chat(QUESTION)
    assert ollama_client.circuit_breaker.failures == 0
    assert logged() == [
        ("operator", "default", "Disabled the circuits of endpoint default: It is flaky today")
    ]


class TestCheck:
    def test_says_how_the_server_is(self, operator: Visit, fake_ollama: FakeOllama) -> None:
        said = operator.act("check")
        assert said.startswith("Endpoint default is healthy. The server answered in ")
        assert "llama3.2 " in said
        assert len(fake_ollama.requests) == 3
        assert fake_ollama.chats == []
        assert logged() == [("operator", "default", "Checked endpoint default: healthy")]

    def test_asks_anew_each_time(self, operator: Visit, fake_ollama: FakeOllama) -> None:
        operator.act("check")
        fake_ollama.refuse()
        said = operator.act("check")
        assert said.startswith("Endpoint default is unhealthy. Cannot connect to Ollama at http://")
        assert said.endswith("Start it with: ollama serve")

    def test_of_a_silent_server_ends_in_time(
        self, operator: Visit, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(TIMEOUT=0.2)
        fake_ollama.misbehave(faults.BlackHole(), path=None)
        assert "is unhealthy. Response timeout" in operator.act("check")

    def test_of_a_forced_endpoint_tells_that_the_server_is_there(self, operator: Visit) -> None:
        operator.act("force-open")
        said = operator.act("check")
        assert "The server answered in " in said
        assert said.endswith(
            "Circuit breaker is OPEN - service unavailable. An operator has opened it"
        )

    def test_moves_no_circuit_and_stores_no_mode(
        self, operator: Visit, fake_ollama: FakeOllama
    ) -> None:
        break_circuit(fake_ollama)
        operator.act("check")
        assert ollama_client.circuit_breaker.state == "open"
        assert not EndpointState.objects.exists()


class TestWhoMay:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_superuser_and_operator(self, visit: Callable[[str], Visit], action: str) -> None:
        for role in ("superuser", "operator"):
            assert visit(role).post(action).status_code == 302
        assert {who for who, *_ in logged()} == {"superuser", "operator"}

    @pytest.mark.parametrize("action", ACTIONS)
    @pytest.mark.parametrize("role", ["viewer", "staff"])
    def test_not_other_staff(self, visit: Callable[[str], Visit], role: str, action: str) -> None:
        assert visit(role).post(action).status_code == 403
        assert logged() == []
        assert not EndpointState.objects.exists()

    @pytest.mark.parametrize("role", ["visitor", "anonymous"])
    def test_not_those_who_are_no_staff(self, visit: Callable[[str], Visit], role: str) -> None:
        response = visit(role).post("force-open")
        assert response.status_code == 302
        assert response.url.startswith("/admin/login/")
        assert not EndpointState.objects.exists()


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_a_post(visit: Callable[[str], Visit], action: str) -> None:
    response = visit("superuser").client.get(f"{PAGE}default/{action}/")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_post_needs_the_token_of_the_page(visit: Callable[[str], Visit], action: str) -> None:
    allowed = visit("superuser")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = allowed.client.cookies
    address = f"{PAGE}default/{action}/"
    assert strict.post(address).status_code == 403
    strict.get(PAGE)
    token = strict.cookies["csrftoken"].value
    assert strict.post(address, {"csrfmiddlewaretoken": token}).status_code == 302


@pytest.mark.parametrize("name", ["nowhere", "default/llama3.2", "DEFAULT", "de%66ault "])
def test_an_endpoint_that_the_settings_do_not_name_is_not_found(
    visit: Callable[[str], Visit], name: str
) -> None:
    assert visit("superuser").post("force-open", name).status_code == 404
    assert not EndpointState.objects.exists()


def test_one_request_as_one_transaction_changes_the_next_call_too(operator: Visit) -> None:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        operator.act("force-open")
        with pytest.raises(CircuitOpen):
            ollama_client.chat(QUESTION)
        assert operator.act("check").startswith("Endpoint default is unhealthy")
        operator.act("reset")
        assert ollama_client.chat(QUESTION)
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_a_check_finds_a_key_that_the_cloud_does_not_accept(
    operator: Visit, settings: Settings, fake_ollama: FakeOllama
) -> None:
    account = FakeAccount.credit("another key")
    with FakeOllama(models=["gpt-oss:120b"], account=account) as cloud:
        settings.OLLAMA_BRIDGE = {
            "BASE_URL": fake_ollama.url,
            "API_KEY": "a-key",
            "CLOUD_MODEL": "gpt-oss:120b-cloud",
            "CLOUD_ENDPOINT": cloud.url,
        }
        assert "does not accept the key" in operator.act("check", "cloud")


def test_a_check_holds_no_transaction_open(
    operator: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    check = ollama_client.health_check

    def health_check(*, force: bool) -> HealthReport:
        seen.append(connection.in_atomic_block)
        return check(force=force)

    monkeypatch.setattr(ollama_client, "health_check", health_check)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", value=True)
    operator.act("check")
    assert seen == [False]


def test_a_change_that_is_rolled_back_moves_nothing(
    operator: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("the log is full")

    monkeypatch.setattr(EndpointStateAdmin, "log_change", fail)
    assert operator.act("force-open").startswith("Nothing was changed")
    assert not EndpointState.objects.exists()
    assert ollama_client.chat(QUESTION)


def test_wrong_settings_lead_back_to_the_page(
    visit: Callable[[str], Visit], settings: Settings
) -> None:
    superuser = visit("superuser")
    settings.OLLAMA_BRIDGE = {"TIMEOUT": "soon"}
    assert superuser.act("reset") == ""


@pytest.fixture
def _unmigrated(operator: Visit) -> Iterator[None]:
    """Take the table of modes away, after the first look."""
    with connection.schema_editor() as editor:
        editor.delete_model(EndpointState)
    yield
    with connection.schema_editor() as editor:
        editor.create_model(EndpointState)


@pytest.mark.usefixtures("_unmigrated")
class TestWithoutTheTable:
    def test_the_page_says_what_to_type(self, operator: Visit) -> None:
        page = operator.page()
        assert (
            "Run: manage.py migrate ollama_bridge. Until then, modes and cooldowns are" in page.text
        )
        assert "for all processes" not in page.text
        assert sorted(page.actions) == sorted(ACTIONS)

    def test_actions_change_this_process(self, operator: Visit) -> None:
        said = operator.act("force-open", reason="drill")
        with pytest.raises(CircuitOpen):
            ollama_client.chat(QUESTION)
        assert said == (
            "Endpoint default: all calls are refused until you reset it. "
            "This process only, until it ends."
        )
        assert "Mode Forced open Circuit of" in operator.page().text
        operator.act("disable")
        assert ollama_client.circuit_breaker.mode == "disabled"
        operator.act("reset")
        assert ollama_client.chat(QUESTION)
        assert [line for *_, line in logged()] == [
            "Forced endpoint default open: drill (in one process only)",
            "Disabled the circuits of endpoint default (in one process only)",
            "Reset endpoint default (in one process only)",
        ]

    def test_the_server_can_be_checked(self, operator: Visit) -> None:
        assert operator.act("check").startswith("Endpoint default is healthy")


@pytest.fixture
def _unreadable(operator: Visit) -> Iterator[None]:
    """Let the table be that of another version."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ollama_bridge_endpointstate RENAME COLUMN reason TO why")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ollama_bridge_endpointstate RENAME COLUMN why TO reason")


@pytest.mark.usefixtures("_unreadable")
def test_a_table_that_cannot_be_read_is_told(operator: Visit) -> None:
    assert "The table of modes cannot be read (OperationalError)." in operator.page().text
    said = operator.act("force-open")
    assert said == "Nothing was changed: the database said OperationalError."
    assert ollama_client.chat(QUESTION)
    assert logged() == []


@pytest.fixture
def _read_only(operator: Visit) -> Iterator[None]:
    """Let nobody write into the table of modes, as a read-only database would."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON ollama_bridge_endpointstate"
            " BEGIN SELECT RAISE(ABORT, 'attempt to write a readonly database'); END"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER refuse")


@pytest.mark.usefixtures("_read_only")
def test_a_database_that_does_not_write_is_told(operator: Visit) -> None:
    said = operator.act("force-open")
    assert said.startswith("Nothing was changed: the database said ")
    assert ollama_client.chat(QUESTION)
    assert logged() == []
