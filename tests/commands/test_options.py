"""``manage.py ollama_reliability_test`` with ``--stream``, with ``--async``, and with both."""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.management.commands import ollama_reliability_test
from ollama_bridge.reliability.document import document as document_of
from ollama_bridge.testing import FakeOllama, faults, when

from .conftest import FORMS, OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Ended, Run

NAME = "ollama_reliability_test"
CLAIMS = [
    "connection pooling",
    "retry logic",
    "circuit breaker pattern",
    "concurrent request handling",
]
MID_STREAM = "mid-stream error handling"

pytestmark = pytest.mark.usefixtures("configure")
in_all_forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def test(run: Run) -> Callable[..., Ended]:
    """Run the command in one form with few calls."""

    def test(form: str, *words: str) -> Ended:
        return run(NAME, *OPTIONS[form], "--requests=4", "--concurrency=6", *words)

    return test


@pytest.fixture
def found(test: Callable[..., Ended]) -> Callable[..., Any]:
    """Return the document of the command."""
    return lambda form, *words: json.loads(test(form, *words, "--format=json").out)


def keys_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from keys_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from keys_of(each)


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_healthy_server_passes_all_tests(
    test: Callable[..., Ended], fake_ollama: FakeOllama, form: str
) -> None:
    ended = test(form)
    streams = "stream" in form
    claims = [*CLAIMS, MID_STREAM] if streams else CLAIMS
    assert ended.code == 0
    assert ended.lines[-len(claims) - 1 :] == ["ALL TESTS PASSED!", *(f"  {it}" for it in claims)]
    assert ended.lines[0] == f"Reliability of {fake_ollama.url}, model llama3.2, by {form}()"
    assert max(map(len, ended.lines)) <= 80
    assert ("first token in s    avg    min    max    p95" in ended.lines) == streams
    assert len(fake_ollama.chats) == 4 + 6
    assert {chat.json["stream"] for chat in fake_ollama.chats} == {streams}


@pytest.mark.usefixtures("_no_time_for_recovery")
class TestWithoutTheRecovery:
    @in_all_forms
    def test_faults_show_up_in_the_rows_the_same(
        self, found: Callable[..., Any], fake_ollama: FakeOllama, form: str
    ) -> None:
        once: list[faults.Fault] = [faults.unavailable(), faults.Reset()]
        always: list[faults.Fault] = [faults.Status(400), faults.out_of_memory()]
        for number, fault in enumerate([*once, *always], 1):
            prompt, odd = when.prompt(f"sequential call {number}:"), when.odd_attempts()
            fake_ollama.misbehave(fault, when=_both(prompt, odd) if fault in once else prompt)
        fake_ollama.misbehave(faults.unauthorized(), when=when.prompt("concurrent call 5:"))
        told = found(form)
        assert told["exit_code"] == 1
        rows = {part: _counts(told[part]) for part in ("sequential", "concurrent")}
        assert rows["sequential"] == {
            "sent": 4,
            "answered": 2,
            "unfinished": 0,
            "success_rate": 50.0,
            "retries": 1 + 3,  # a connection that is reset before its first byte costs none
            "failures": [("request_rejected", 1), ("upstream_failed", 1)],
        }
        assert rows["concurrent"] == {
            "sent": 6,
            "answered": 5,
            "unfinished": 0,
            "success_rate": 83.333333,
            "retries": 0,
            "failures": [("upstream_auth", 1)],
        }

    @pytest.mark.parametrize("form", ["stream", "astream"])
    def test_a_stream_that_breaks_off_is_no_answer_and_not_repeated(
        self, found: Callable[..., Any], fake_ollama: FakeOllama, form: str
    ) -> None:
        fake_ollama.misbehave(faults.CutStream(), when=when.prompt("sequential call 2:"))
        told = found(form)
        assert told["exit_code"] == 1
        assert _counts(told["sequential"])["failures"] == [("stream_interrupted", 1)]
        assert (told["sequential"]["answered"], told["sequential"]["retries"]) == (3, 0)
        assert told["proven"] == [*CLAIMS, MID_STREAM]

    @pytest.mark.parametrize("form", ["stream", "astream"])
    def test_the_first_piece_comes_before_the_end(
        self, found: Callable[..., Any], fake_ollama: FakeOllama, form: str
    ) -> None:
        fake_ollama.misbehave(faults.StallStream(seconds=0.2))
        told = found(form)
        for part in ("sequential", "concurrent"):
            first, whole = told[part]["first_token"], told[part]["latency"]
            assert list(first) == list(whole) == ["average", "min", "max", "p95"]
            assert 0 < first["min"] <= first["average"] <= first["max"]
            assert first["min"] < whole["min"] - 0.1

    @pytest.mark.parametrize("form", ["chat", "achat"])
    def test_whole_answers_have_no_first_piece(self, found: Callable[..., Any], form: str) -> None:
        told = found(form)
        assert told["sequential"]["first_token"] is None
        assert told["cuts"] is None
        assert [each["part"] for each in told["results"]][-1] == "recovery"

    @in_all_forms
    def test_the_document_says_the_form_and_every_key_is_documented(
        self, found: Callable[..., Any], fake_ollama: FakeOllama, form: str
    ) -> None:
        fake_ollama.misbehave(faults.Status(400), when=when.prompt("call 2:"))
        told = found(form)
        assert told["plan"]["form"] == form
        documented = document_of.__doc__ or ""
        deep = {"health", "pooling", "retries", "recovery", "cuts"}  # described elsewhere
        for part in ("sequential", "concurrent"):
            assert told[part]["answered_by"].pop("default")  # a name, and no key
        mine = {name: each for name, each in told.items() if name not in deep}
        assert not [name for name in {*keys_of(mine), *told} if name not in documented]
        help_ = ollama_reliability_test.Command.epilog
        assert not [name for name in told if f'"{name}"' not in help_]
        assert not [name for name in keys_of(told["sequential"]) if f'"{name}"' not in help_]

    @in_all_forms
    def test_callers_at_once_may_go_on_for_a_time(
        self, found: Callable[..., Any], form: str
    ) -> None:
        told = found(form, "--duration=0.3")
        assert told["passed"]
        assert told["concurrent"]["sent"] > 6
        assert told["concurrent"]["total"] >= 0.2
        assert 1 < told["concurrent"]["peak_in_flight"] <= 6

    @pytest.mark.parametrize("form", ["achat", "astream"])
    def test_two_hundred_callers_on_a_loop_need_few_threads(
        self, run: Run, configure: Callable[..., None], form: str
    ) -> None:
        before, seen = threading.active_count(), [0]

        def look(*_: object) -> None:
            seen[0] = max(seen[0], threading.active_count())

        class Together:
            """Nobody is answered before all have asked."""

            async def reply(self, exchange: faults.Exchange) -> None:
                while server.peak_in_flight < 200:
                    await exchange.sleep(0.01)
                await exchange.send(exchange.honest())

        with FakeOllama(on_request=look) as server:
            server.misbehave(Together(), when=when.prompt("concurrent call"))
            configure(BASE_URL=server.url)
            ended = run(NAME, *OPTIONS[form], "--concurrency=200", "--format=json")
        told = json.loads(ended.out)
        assert told["passed"]
        assert told["concurrent"]["peak_in_flight"] == 200
        assert 0 < seen[0] - before < 20

    @pytest.mark.parametrize("form", ["stream", "achat", "astream"])
    def test_an_interrupt_leaves_nothing_running(
        self,
        test: Callable[..., Ended],
        fake_ollama: FakeOllama,
        monkeypatch: pytest.MonkeyPatch,
        form: str,
    ) -> None:
        fake_ollama.misbehave(faults.BlackHole(), when=when.prompt("concurrent call"))
        ollama_client.health_check()  # what begins with the first call goes on
        before = set(threading.enumerate())
        _interrupt_at(monkeypatch, lambda: fake_ollama.in_flight == 6)
        ended = test(form, "--format=json")
        told = json.loads(ended.out)
        assert ended.code == told["exit_code"] == 130
        assert (told["concurrent"]["sent"], told["concurrent"]["unfinished"]) == (6, 6)
        assert told["results"][2]["state"] == "interrupted"
        assert len(told["results"]) == (7 if "stream" in form else 6)
        fake_ollama.wait_for(lambda server: len(server.disconnects) == 6)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive()
        assert len(fake_ollama.chats) == 4 + 6  # nothing is repeated

    @pytest.mark.parametrize("form", ["achat", "astream"])
    @pytest.mark.parametrize("format_", ["table", "json"])
    def test_without_aiohttp_it_says_what_to_type(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, form: str, format_: str
    ) -> None:
        monkeypatch.delitem(sys.modules, "ollama_bridge.transports.aiopool", raising=False)
        monkeypatch.setitem(sys.modules, "aiohttp", None)
        ended = test(form, "--format", format_)
        assert ended.code == 3
        sentence = "Async calls need aiohttp. Type: pip install 'django-ollama-bridge[async]'"
        assert sentence in " ".join(ended.err.split())
        if format_ == "json":
            assert json.loads(ended.out)["error"]["message"] == sentence
        else:
            assert ended.out == ""

    def test_without_aiohttp_threads_work_as_ever(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "ollama_bridge.transports.aiopool", raising=False)
        monkeypatch.setitem(sys.modules, "aiohttp", None)
        assert test("stream").code == test("chat").code == 0

    @in_all_forms
    def test_its_calls_are_logged_only_where_that_is_wished(
        self, test: Callable[..., Ended], caplog: pytest.LogCaptureFixture, form: str
    ) -> None:
        caplog.set_level(logging.INFO)
        test(form)
        assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]
        test(form, "--verbosity=2")
        told = [each.getMessage() for each in caplog.records]
        # Those to the server, and none of the drills.
        assert len([line for line in told if line.startswith("Generating response")]) == 4 + 6

    def test_health_is_asked_in_the_same_form_and_ollama_health_as_ever(
        self, run: Run, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        health = [json.loads(run("ollama_health", "--format=json").out)["endpoints"][0]]
        health += [json.loads(test(form, "--format=json").out)["health"] for form in FORMS]
        for each in health[1:]:
            (same,) = each.pop("endpoints")
            health.append(same)
        for each in health:
            assert each.pop("latency") > 0
            each.pop("loaded")  # the test has loaded the model
        assert all(each == health[0] for each in health)
        assert fake_ollama.url == health[0]["url"]


def _both(first: when.Predicate, second: when.Predicate) -> when.Predicate:
    return lambda request: first(request) and second(request)


def _counts(row: dict[str, Any]) -> dict[str, Any]:
    """Return what does not depend on the time."""
    names = ("sent", "answered", "unfinished", "success_rate", "retries")
    failures = [(each["code"], each["count"]) for each in row["failures"]]
    return {**{name: row[name] for name in names}, "failures": failures}


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, is_time: Callable[[], bool]) -> None:
    """Let Ctrl-C come while progress is shown, at the moment that is wanted."""
    from ollama_bridge.management.progress import PlainLines  # noqa: PLC0415

    update = PlainLines.update

    def interrupted(self: PlainLines, done: float, note: str = "") -> None:
        if is_time():
            raise KeyboardInterrupt
        update(self, done, note)

    monkeypatch.setattr(PlainLines, "update", interrupted)
