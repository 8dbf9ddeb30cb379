"""What the page shows, and to whom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.staticfiles import finders
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse
from django.utils.formats import date_format

from ollama_bridge import OllamaBridgeError, conf, ollama_client
from ollama_bridge.models import EndpointState, Mode
from ollama_bridge.plans import plan_for
from ollama_bridge.testing import FakeOllama, faults

from .panel import PAGE, Shown, Visit

if TYPE_CHECKING:
    from pytest_django import Settings

Configure = Callable[..., None]
See = Callable[[str], Visit]
QUESTION = "What is water?"
ALL_ACTIONS = ["check", "reset", "force-open", "disable"]


def ask(times: int = 1, model: str | None = None) -> None:
    for _ in range(times):
        with suppress(OllamaBridgeError):
            ollama_client.chat(QUESTION, model=model)


def store_cooldown(server: FakeOllama, seconds: float) -> None:
    """Let another process have been told that the allowance of the server is used up."""
    assert server.url == conf.current().BASE_URL
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    account = plan_for(conf.current()).default.targets[0].endpoint.identity
    EndpointState.objects.begin_cooldown("default", account, until, "quota_exhausted")


class TestWhoSees:
    @pytest.mark.parametrize("role", ["superuser", "operator"])
    def test_everything(self, visit: See, role: str) -> None:
        assert visit(role).page().actions == ALL_ACTIONS

    def test_the_page_without_its_buttons(self, visit: See) -> None:
        page = visit("viewer").page()
        assert "http://127.0.0.1" in page.text
        assert page.actions == []
        assert "Force" not in page.text

    def test_nothing_without_permission(self, visit: See) -> None:
        assert visit("staff").client.get(PAGE).status_code == 403

    @pytest.mark.parametrize("role", ["visitor", "anonymous"])
    def test_only_the_login_without_being_staff(self, visit: See, role: str) -> None:
        assert visit(role).client.get(PAGE).headers["Location"] == f"/admin/login/?next={PAGE}"

    def test_it_on_the_front_page_of_the_admin(self, visit: See) -> None:
        assert PAGE in visit("viewer").client.get(reverse("admin:index")).content.decode()
        assert PAGE not in visit("staff").client.get(reverse("admin:index")).content.decode()


class TestAnEndpoint:
    def test_is_there_without_any_call_or_row(self, visit: See, fake_ollama: FakeOllama) -> None:
        text = visit("viewer").page().text
        assert f"Server {fake_ollama.url} Model llama3.2 Mode Automatic" in text
        assert "all models Closed - 0 - 0 - - -" in text
        assert fake_ollama.requests == []

    def test_has_its_figures_and_those_of_its_models(self, visit: See) -> None:
        ask(3)
        ask(model="absent")
        text = visit("viewer").page().text
        assert "all models Closed - 0 - 4 75.0 % " in text
        assert "llama3.2 Closed - 0 - 3 100.0 % " in text
        assert "absent Closed - 0 - 1 0.0 % - -" in text

    def test_that_failed_says_why_and_until_when(
        self, visit: See, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(OPEN_SECONDS=20)
        fake_ollama.refuse()
        ask(6)
        text = visit("viewer").page().text
        assert "default Open Server" in text
        assert "connection_failed the server was not reached, or hung up 6, 1 refused 0.0 %" in text
        left = ollama_client.circuit_breaker.retry_after
        assert left is not None
        assert any(f"Open in {seconds} s 5" in text for seconds in range(int(left), int(left) + 3))

    def test_that_serves_all_models_but_one_says_which(
        self, visit: See, configure: Configure
    ) -> None:
        with FakeOllama(models=["llama3.2", "other"]) as server:
            configure(BASE_URL=server.url, FAILURE_THRESHOLD=1)
            server.misbehave(faults.server_error())
            ask(model="other")
        text = visit("viewer").page().text
        assert "default Closed Server" in text
        assert "all models Closed" in text
        assert "other Open in " in text

    def test_whose_probe_is_due_says_so(
        self, visit: See, configure: Configure, fake_ollama: FakeOllama
    ) -> None:
        configure(OPEN_SECONDS=0.001, FAILURE_THRESHOLD=1)
        fake_ollama.refuse()
        ask()
        assert "Open with the next call 1" in visit("viewer").page().text

    def test_that_asked_for_a_pause_says_for_how_long(
        self, visit: See, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.rate_limited(retry_after=30))
        ask()
        text = visit("viewer").page().text
        assert "default Closed Cooling down Server" in text
        assert "Cooldown The server asked for a pause: next try in " in text
        assert "). Not kept over restarts. " in text
        assert "Reset ends it." not in text

    @pytest.mark.usefixtures("transactional_db")
    def test_whose_allowance_is_used_up_says_until_when_and_that_it_is_kept(
        self, visit: See, fake_ollama: FakeOllama
    ) -> None:
        store_cooldown(fake_ollama, seconds=3 * 86_400)
        text = visit("operator").page().text
        assert "Cooldown The usage limit is reached: next try in 3 days (" in text
        assert "), which decides for all others. Kept over restarts. Reset ends it." in text
        assert "Reset, end cooldown" in text
        assert fake_ollama.requests == []

    @pytest.mark.usefixtures("transactional_db")
    def test_whose_cooldown_is_over_says_that_a_call_tries(
        self, visit: See, fake_ollama: FakeOllama
    ) -> None:
        store_cooldown(fake_ollama, seconds=-5)
        text = visit("viewer").page().text
        assert "default Closed Cooldown over, next call tries Server" in text
        assert "next try with the next call, which decides for all others." in text

    def test_that_counts_its_calls_says_how_many(self, visit: See, configure: Configure) -> None:
        configure(QUOTA_LIMIT=10)
        ask(3)
        governing: Any = ollama_client._governing
        governing._keep()
        page = visit("viewer").page()
        assert (
            "Allowance 30 % of the allowance used, 3 of 10 requests, "
            "by our own count of answered calls (resets at "
        ) in page.text
        (meter,) = page.of("meter")
        assert meter["value"] == "0.30"

    @pytest.mark.usefixtures("transactional_db")
    def test_without_a_row_of_an_operator_tells_of_no_change(
        self, visit: See, fake_ollama: FakeOllama
    ) -> None:
        store_cooldown(fake_ollama, seconds=60)
        text = visit("viewer").page().text
        assert "Mode Automatic Cooldown" in text

    def test_tells_who_set_its_mode_when_and_why(self, visit: See) -> None:
        operator = visit("operator")
        operator.act("force-open", reason="Heat <b>wave</b>")
        operator.act("check")
        page = operator.page()
        year = EndpointState.objects.get().changed_at.year
        assert "Mode Forced open Heat <b>wave</b> operator, " in page.text
        assert str(year) in page.text
        assert "&lt;b&gt;" in page.html

    def test_does_not_name_the_operator_of_an_older_change(self, visit: See) -> None:
        operator = visit("operator")
        operator.act("force-open", reason="drill")
        EndpointState.objects.change("default", Mode.DISABLED, "by a script")
        text = operator.page().text
        assert "Mode Disabled by a script" in text
        assert "operator, " not in text

    def test_tells_that_this_process_has_another_mode(self, visit: See) -> None:
        ollama_client.circuit_breaker.disable()
        assert "Mode Automatic In this process: Disabled (" in visit("viewer").page().text

    def test_whose_mode_is_of_a_newer_version_shows_its_word(self, visit: See) -> None:
        EndpointState.objects.create(name="default", mode="paused", revision=1)
        page = visit("viewer").page()
        assert "paused" in page.text
        assert "In this process" not in page.text

    def test_has_a_history(self, visit: See) -> None:
        operator = visit("operator")
        address = reverse("admin:ollama_bridge_endpointstate_history", args=["default"])
        assert operator.client.get(address).status_code == 200
        operator.act("check")
        operator.act("force-open", reason="drill")
        shown = Shown(operator.client.get(address).content.decode()).text
        assert "Checked endpoint default: healthy" in shown
        assert "Forced endpoint default open: drill" in shown
        elsewhere = reverse("admin:ollama_bridge_endpointstate_history", args=["nowhere"])
        assert operator.client.get(elsewhere).status_code == 302


class TestSeveralEndpoints:
    @pytest.fixture
    def local(self, configure: Configure, fake_ollama: FakeOllama) -> Iterator[FakeOllama]:
        """A second server; calls go to the first one, ``cloud``, as long as it answers."""
        with FakeOllama(models=["qwen3"]) as local:
            configure(
                ENDPOINTS={
                    "cloud": {"BASE_URL": fake_ollama.url},
                    "local": {"BASE_URL": local.url, "MODEL": "qwen3"},
                },
                ROUTES={
                    "default": {"TARGETS": ["cloud", "local"]},
                    "ab": {
                        "STRATEGY": "weighted",
                        "TARGETS": ["local", "local/llama3.2"],
                        "WEIGHTS": {"local": 9},
                    },
                },
            )
            yield local

    def test_each_have_their_circuits_and_figures(
        self, visit: See, local: FakeOllama, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.usage_limit(retry_after=60))
        ask(3)
        page = visit("operator").page()
        assert page.actions == ALL_ACTIONS * 2
        assert f"cloud Closed Cooling down Server {fake_ollama.url} Model llama3.2" in page.text
        assert f"local Closed Server {local.url} Model qwen3" in page.text
        assert "qwen3 Closed - 0 - 3 100.0 % " in page.text
        assert [link["href"] for link in page.of("a") if "#endpoint-" in (link["href"] or "")] == [
            "#endpoint-cloud",
            "#endpoint-local",
        ]

    @pytest.mark.usefixtures("local")
    def test_are_named_with_the_routes_that_lead_there(self, visit: See) -> None:
        text = visit("viewer").page().text
        assert text.count("Routes default Circuit of") == 1
        assert text.count("Routes default, ab Circuit of") == 1
        assert (
            "Routes default failover: cloud/llama3.2 → local/qwen3 for calls that name no route "
            "ab weighted: local/qwen3 (9), local/llama3.2 (1)"
        ) in text

    def test_are_checked_and_moved_one_by_one(
        self, operator: Visit, local: FakeOllama, fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        said = operator.act("check", "local")
        assert said.startswith("Endpoint local is degraded. The server answered in ")
        assert said.endswith(", qwen3 not loaded yet. Run there: ollama pull llama3.2")
        local.install("llama3.2")
        assert operator.act("check", "local").startswith("Endpoint local is healthy. The server")
        assert operator.act("check", "cloud").startswith("Endpoint cloud is unhealthy. Cannot")
        operator.act("force-open", "local")
        modes = {name: found.mode for name, found in ollama_client.circuit_breakers.items()}
        assert (modes["cloud"], modes["local"]) == ("auto", "forced_open")


class TestThePage:
    def test_says_what_is_of_this_process_and_what_of_all(self, visit: See) -> None:
        text = visit("viewer").page().text
        assert f"those of this process (number {os.getpid()}, since " in text
        assert "Modes and cooldowns are stored for all processes , which follow within 5" in text

    def test_says_when_in_the_project_s_own_time(self, visit: See, settings: Settings) -> None:
        settings.USE_TZ = False
        settings.TIME_ZONE = "America/Chicago"
        page = visit("viewer").page()
        since = ollama_client.running_since
        assert since is not None
        local = since.astimezone(ZoneInfo("America/Chicago"))
        assert date_format(local.replace(tzinfo=None), "DATETIME_FORMAT") in page.text

    def test_lists_no_rows_to_edit(self, visit: See) -> None:
        EndpointState.objects.change("default", Mode.AUTO)
        superuser = visit("superuser")
        for address in ("add/", "default/delete/"):
            assert superuser.client.get(PAGE + address).status_code == 404
        assert superuser.client.get(f"{PAGE}default/change/").headers["Location"] == PAGE

    def test_has_nothing_inline(self, visit: See) -> None:
        page = visit("superuser").page()
        assert page.of("style") == []
        assert all(script.get("src") for script in page.of("script"))
        for _, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on") or name == "style"]

    def test_has_its_style(self, visit: See) -> None:
        sheets = [link["href"] for link in visit("viewer").page().of("link")]
        assert "/static/ollama_bridge/admin.css" in sheets

    def test_labels_each_of_its_fields(self, visit: See) -> None:
        page = visit("operator").page()
        labelled = {label["for"] for label in page.of("label")}
        fields = {field["id"] for field in page.of("input") if field.get("name") == "reason"}
        assert len(fields) == 2
        assert fields <= labelled

    def test_of_wrong_settings_says_what_is_wrong(self, visit: See, settings: Settings) -> None:
        settings.OLLAMA_BRIDGE = {"TIMEOUT": "soon"}
        page = visit("superuser").page()
        assert "The settings are wrong, so no call can be made." in page.text
        assert "TIMEOUT must be a number" in page.text
        assert page.actions == []
        address = reverse("admin:ollama_bridge_endpointstate_history", args=["default"])
        assert visit("viewer").client.get(address).status_code == 302


CANARY = "canary-4711"


@pytest.mark.parametrize(
    "secrets",
    [
        {
            "API_KEY": CANARY,
            "HEADERS": {"X-Secret": CANARY},
            "PROXY": f"http://bob:{CANARY}@127.0.0.1:9",
            "SYSTEM_PROMPT": CANARY,
        },
        {"BASE_URL": f"http://bob:{CANARY}@127.0.0.1:9"},
        {"API_KEY": CANARY, "BASE_URL": "http://10.0.0.5:11434"},
    ],
)
def test_no_secret_is_on_the_page_in_messages_or_in_the_log(
    visit: See, configure: Configure, secrets: dict[str, object]
) -> None:
    operator = visit("operator")
    configure(**secrets)
    with suppress(OllamaBridgeError, ImproperlyConfigured):
        ollama_client.chat(CANARY)
    said = [operator.act(action) for action in ALL_ACTIONS]
    address = reverse("admin:ollama_bridge_endpointstate_history", args=["default"])
    history = operator.client.get(address).content.decode()
    for shown in (operator.page().html, history, *said):
        assert CANARY not in shown


def test_the_style_is_found_as_a_static_file() -> None:
    assert finders.find("ollama_bridge/admin.css")
