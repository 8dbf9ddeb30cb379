"""What the README shows is run, and what it says is held against the code."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import ollama_bridge
from ollama_bridge import OllamaClient, conf, errors
from ollama_bridge.api.errors import STATUSES
from ollama_bridge.api.fields import Refused
from ollama_bridge.api.serializers import ChatSerializer
from ollama_bridge.conf import Settings
from ollama_bridge.testing import FakeOllama

from . import readme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from django.test import Client

SETTINGS = {row[0].strip("`"): row for row in readme.table("| Setting | Environment | Default | |")}
ERRORS = readme.table("| Error | `code` | HTTP | Retryable | What happened, and what to do |")
OWN_CODES = readme.table("| `code` | HTTP | |")
REST_OF_A_PROJECT = """
SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""


@pytest.fixture
def liquid() -> Iterator[FakeOllama]:
    """The server that answers as the README's examples have it."""
    with FakeOllama(answer="A liquid.") as server:
        yield server


def run(folder: Path, *arguments: str) -> str:
    """Run Python in a folder and return what it prints."""
    done = subprocess.run(  # noqa: S603  # our own README
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def promises(code: str) -> Iterator[tuple[str, str]]:
    """Give each expression that stands alone, with the comment behind it."""
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr) and statement.end_lineno is not None:
            comment = lines[statement.end_lineno - 1].partition("  # ")[2]
            yield ast.unparse(statement), comment


def literal(text: str) -> Any:
    """Return what a comment says the value is, or ... where it explains instead."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ...


def test_the_first_example_is_a_program_that_prints_what_it_says(tmp_path: Path) -> None:
    program = readme.files()["try_it.py"]
    (tmp_path / "try_it.py").write_text(program, encoding="utf-8")

    printed = run(tmp_path, "-W", "error", "try_it.py")

    assert printed.strip() == program.splitlines()[-1].partition("  # ")[2]


def test_the_snippets_run_in_turn_and_values_are_as_the_comments_say(
    settings: Any, liquid: FakeOllama
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": liquid.url}
    names: dict[str, Any] = {}
    compared = 0

    for code in readme.snippets():
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102  # our own README
        for expression, comment in promises(code):
            if (said := literal(comment)) is not ...:
                assert eval(expression, names) == said, expression  # noqa: S307  # the same
                compared += 1

    assert compared >= 10
    assert len(liquid.chats) == 8


def test_the_settings_of_several_servers_are_what_they_say() -> None:
    made = []
    for code in readme.snippets():
        if code.startswith("# In the settings:"):
            names: dict[str, Any] = {}
            exec(code, names)  # noqa: S102  # our own README
            made.append(Settings.build(names["OLLAMA_BRIDGE"]))
    servers, experiment = made
    assert sorted(servers.names) == ["careful", "cloud", "cpu", "default", "gpu"]
    assert servers.ENDPOINTS["cpu"].API_KEY is None
    assert servers.ENDPOINTS["cpu"].TIMEOUT == 60
    assert experiment.ROUTES["default"].WEIGHTS == {"gpu/llama3.2": 9, "gpu/qwen3": 1}


def test_the_strategy_of_ones_own_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    (code,) = (code for code in readme.snippets() if "def nearest" in code)
    exec(code, names)  # noqa: S102  # our own README
    school = ModuleType("school")
    monkeypatch.setitem(sys.modules, "school", school)
    monkeypatch.setattr(school, "strategies", SimpleNamespace(nearest=names["nearest"]), False)
    monkeypatch.setitem(sys.modules, "school.strategies", school.strategies)
    route = {"STRATEGY": "school.strategies.nearest", "TARGETS": ["us", "eu"]}
    with FakeOllama(answer="us") as us, FakeOllama(answer="eu") as eu:
        endpoints = {"us": {"BASE_URL": us.url}, "eu": {"BASE_URL": eu.url}}
        with OllamaClient(endpoints=endpoints, routes={"default": route}) as client:
            assert client.chat("Where?") == "eu"


def test_the_snippet_about_errors_tells_of_a_dead_server(
    settings: Any, liquid: FakeOllama, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.OLLAMA_BRIDGE = {"BASE_URL": liquid.url, "MAX_RETRIES": 0}
    liquid.refuse()

    for code in readme.snippets():
        if "except" in code:
            exec(code, {"ollama_client": ollama_bridge.ollama_client})  # noqa: S102  # our own README

    assert "ollama serve" in capsys.readouterr().out


def test_the_project_of_the_readme_passes_its_own_tests(tmp_path: Path) -> None:
    """Its settings, URLs and view are put together as it says, and its tests are run."""
    for name, code in readme.files().items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    mentor = re.search(r"Put `(path\(.+?\))` before", readme.TEXT)
    assert mentor is not None
    urls = readme.files()["urls.py"].replace("[\n", f"[\n    {mentor[1]},\n")
    (tmp_path / "urls.py").write_text("from views import MentorView\n" + urls, encoding="utf-8")
    with (tmp_path / "settings.py").open("a", encoding="utf-8") as written:
        written.write(REST_OF_A_PROJECT)
    (tmp_path / "pytest.ini").touch()

    run(tmp_path, "-m", "django", "check", "--settings=settings", "--pythonpath=.")
    printed = run(tmp_path, "-m", "pytest", "--ds=settings")

    assert "3 passed" in printed


def test_every_setting_is_in_the_table_in_the_order_of_the_code() -> None:
    assert list(SETTINGS) == [declared.name for declared in fields(Settings)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_the_variables_and_the_default_of_the_table(name: str) -> None:
    _, variables, default, meaning = SETTINGS[name]

    assert tuple(readme.codes(variables)) == conf.VARIABLES[name]
    assert Settings.build({name: ast.literal_eval(readme.codes(default)[0])}) == Settings()
    assert meaning


def test_every_error_is_in_the_table_or_said_to_come_later() -> None:
    waiting = re.search(r"^(.+) wait for features to come", readme.TEXT, re.MULTILINE)
    assert waiting is not None
    told = [row[0].strip("`") for row in ERRORS] + readme.codes(waiting[1])
    all_errors = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.OllamaBridgeError) and not name.startswith("_")
    }

    assert sorted(told) == sorted(all_errors - {"OllamaBridgeError"})


@pytest.mark.parametrize(("name", "code", "status", "retryable", "remedy"), ERRORS)
def test_an_error_is_as_its_row_says(
    name: str, code: str, status: str, retryable: str, remedy: str
) -> None:
    error = getattr(errors, name.strip("`"))

    assert error.code == code.strip("`")
    assert STATUSES[error.code] == int(status)
    assert error.retryable == (retryable == "yes")
    assert remedy.count(".") >= 2  # what happened, and what to do


def test_every_code_of_the_api_is_in_one_of_the_tables() -> None:
    later = {"deferred", "output_invalid"}
    own = {row[0].strip("`"): int(row[1]) for row in OWN_CODES}
    of_errors = {row[1].strip("`"): int(row[2]) for row in ERRORS}

    assert own | of_errors == {code: STATUSES[code] for code in STATUSES if code not in later}


def test_the_fields_of_a_request_are_those_of_the_serializer() -> None:
    told = [name for row in readme.table("| Field | |") for name in readme.codes(row[0])]
    declared = ChatSerializer().fields

    assert sorted(told) == sorted(
        name for name, each in declared.items() if not isinstance(each, Refused)
    )


def test_the_bodies_shown_have_the_keys_of_real_ones(
    client: Client, settings: Any, liquid: FakeOllama
) -> None:
    bridge = {"BASE_URL": liquid.url, "PERMISSION_CLASSES": [], "MAX_RETRIES": 0}
    settings.OLLAMA_BRIDGE = bridge
    shown = [json.loads(each) for each in readme.blocks("json")]
    question = {"message": "What is water?"}

    answer = client.post("/api/chat/", question, content_type="application/json")
    health = client.get("/api/health/")
    ollama_bridge.ollama_client.circuit_breaker.force_open()
    refusal = client.post("/api/chat/", question, content_type="application/json")

    for body, real in zip(shown, (answer, refusal, health), strict=True):
        assert list(body) == list(real.json())
    assert shown[0]["response"] == answer.json()["response"]
    assert shown[1]["error"] == refusal.json()["error"]
    assert shown[2] == health.json()


def test_arguments_of_chat_are_all_told() -> None:
    told = readme.section("From Python")

    for name in inspect.signature(OllamaClient.chat).parameters:
        assert re.search(rf"\b{name}\b", told) or name in {"self", "message"}, name


def test_arguments_of_streams_and_batches_are_all_told() -> None:
    of_chat = inspect.signature(OllamaClient.chat).parameters

    for title, method in (
        ("Streams", OllamaClient.stream),
        ("Many questions", OllamaClient.chat_many),
    ):
        own = inspect.signature(method).parameters.keys() - of_chat.keys() - {"messages", "same"}
        assert own
        assert not [name for name in own if not re.search(rf"\b{name}\b", readme.section(title))]


def test_async_twins_take_the_same_arguments() -> None:
    for name in ("chat", "stream", "chat_many", "health_check"):
        sync, twin = (
            inspect.signature(getattr(OllamaClient, each)).parameters for each in (name, f"a{name}")
        )
        assert sync == twin


def test_the_simulator_takes_the_line_that_is_shown() -> None:
    from ollama_bridge.testing import cli  # noqa: PLC0415  # it loads the whole server

    line = re.search(r"`manage.py ollama_simulator (.+?)`", readme.TEXT)
    assert line is not None

    options = cli.parser().parse_args(line[1].split())

    assert options.fault == "reset"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https:)([^)#]+)\)", readme.TEXT):
        assert (readme.ROOT / target).is_file(), target


def test_no_line_promises_what_is_not_built() -> None:
    later = ("generate(", "embed(")
    built = readme.TEXT.split("## Not yet")[0]

    assert not [word for word in later if word in built]
