"""``manage.py ollama_reliability_test`` against servers that are well, weak, dying and dead."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.reliability import drills
from ollama_bridge.testing import FakeOllama, faults, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Ended, Run

NAME = "ollama_reliability_test"
FEW = ("--requests=4", "--concurrency=6")
CLAIMS = [
    "connection pooling",
    "retry logic",
    "circuit breaker pattern",
    "concurrent request handling",
]
KEYS = [
    *("passed", "exit_code", "proven", "results", "plan", "health", "sequential", "concurrent"),
    *("pooling", "retries", "recovery", "cuts", "failover", "error"),
]

pytestmark = pytest.mark.usefixtures("configure")


@pytest.fixture
def test(run: Run) -> Callable[..., Ended]:
    """Run the command with few calls."""

    def test(*words: str, **options: Any) -> Ended:
        return run(NAME, *FEW, *words, **options)

    return test


@contextmanager
def dying(server: FakeOllama, chats: int) -> Iterator[None]:
    """Within the block the server is killed at its n-th chat, which it does not answer."""
    numbers = count(1)
    server.misbehave(faults.BlackHole(), when=lambda _: next(numbers) >= chats)

    def kill() -> None:
        server.wait_for(lambda server: len(server.chats) >= chats, 30)
        server.refuse()

    murderer = threading.Thread(target=kill)
    murderer.start()
    yield
    murderer.join()


def states(document: dict[str, Any]) -> dict[str, str]:
    return {each["part"]: each["state"] for each in document["results"]}


def test_a_healthy_server_passes_all_tests(
    test: Callable[..., Ended], fake_ollama: FakeOllama
) -> None:
    ended = test()
    assert ended.code == 0
    assert ended.lines[-5:] == ["ALL TESTS PASSED!", *(f"  {claim}" for claim in CLAIMS)]
    assert ended.lines[0] == f"Reliability of {fake_ollama.url}, model llama3.2"
    assert max(map(len, ended.lines)) <= 80
    assert "\x1b" not in ended.out + ended.err
    assert len(fake_ollama.chats) == 4 + 6
    parts = dict.fromkeys(line.partition(":")[0] for line in ended.err.splitlines())
    assert list(parts) == [
        *("health", "sequential", "concurrent", "pooling", "retries", "recovery")
    ]


@pytest.mark.usefixtures("_no_time_for_recovery")
class TestWithoutTheRecovery:
    def test_a_flaky_server_is_survived_by_retries(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.misbehave(faults.unavailable(), when=when.odd_attempts())
        ended = test("--format=json")
        found = json.loads(ended.out)
        assert ended.code == 0
        assert found["passed"]
        assert (found["sequential"]["answered"], found["sequential"]["retries"]) == (4, 4)
        assert (found["concurrent"]["answered"], found["concurrent"]["retries"]) == (6, 6)
        told = test().lines
        assert "sequential: 4 retries needed" in told
        assert "concurrent: 6 retries needed" in told

    def test_a_dying_server_gives_figures_and_the_command_to_type(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        with dying(fake_ollama, chats=3):
            ended = test()
        assert ended.code == 1
        text = ended.out
        assert "ALL TESTS PASSED" not in text
        assert "sequential  FAILED" in text
        assert f"  Cannot connect to Ollama at {fake_ollama.url}." in ended.lines
        assert ended.lines.count("  Start it with: ollama serve") == 1  # once for both parts
        assert "x connection_failed" in text
        assert "concurrent: 6 x " in text
        assert ended.lines[-5:] == [
            "NOT PASSED: sequential, concurrent",
            "Proven all the same:",
            *(f"  {claim}" for claim in CLAIMS[:3]),
        ]
        assert max(map(len, ended.lines)) <= 80

    def test_after_its_death_the_circuit_refuses_and_that_is_counted(
        self, run: Run, fake_ollama: FakeOllama
    ) -> None:
        with dying(fake_ollama, chats=1):
            ended = run(NAME, "--requests=10", "--concurrency=6", "--format=json")
        found = json.loads(ended.out)
        assert found["concurrent"]["failures"][0]["code"] == "circuit_open"
        assert found["concurrent"]["failures"][0]["count"] == 6
        assert ollama_client.circuit_breaker.state == "open"

    def test_an_absent_server_is_not_called_but_the_drills_are_held(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        ended = test()
        assert ended.code == 3
        assert "health      FAILED   Cannot connect to Ollama" in ended.out
        assert "sequential  not run  there is no server to call" in ended.lines
        assert "times in s" not in ended.out
        assert ended.lines[-3:] == [f"  {claim}" for claim in CLAIMS[:3]]
        found = json.loads(test("--format=json").out)
        assert (found["sequential"], found["concurrent"]) == (None, None)
        assert found["health"]["error"]["code"] == "connection_failed"
        assert states(found)["recovery"] == "passed"

    def test_a_missing_model_is_a_failure_with_the_command_to_type(
        self, test: Callable[..., Ended], configure: Callable[..., None], fake_ollama: FakeOllama
    ) -> None:
        configure(MODEL="qwen3:0.6b")
        ended = test()
        assert ended.code == 1
        assert "Model qwen3:0.6b not found. Run: ollama pull qwen3:0.6b" in ended.out
        assert fake_ollama.chats == []

    def test_a_circuit_that_is_forced_open_is_told_with_what_to_type(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        ollama_client.circuit_breaker.force_open()
        ended = test()
        assert ended.code == 1
        assert "ollama_client.circuit_breaker.reset()" in ended.out
        assert fake_ollama.chats == []

    def test_less_than_all_may_be_enough(
        self, test: Callable[..., Ended], configure: Callable[..., None], fake_ollama: FakeOllama
    ) -> None:
        configure(MAX_RETRIES=0)
        fake_ollama.misbehave(faults.Status(400), when=when.first(1))
        found = json.loads(test("--min-success=75", "--format=json").out)
        assert found["sequential"]["success_rate"] == 75.0
        assert states(found)["sequential"] == "passed"
        assert found["plan"]["min_success"] == 75.0

    def test_callers_at_once_may_go_on_for_a_time(self, test: Callable[..., Ended]) -> None:
        found = json.loads(test("--duration=0.3", "--format=json").out)
        assert found["passed"]
        assert found["plan"]["duration"] == 0.3
        assert found["concurrent"]["sent"] > 6
        assert found["concurrent"]["total"] >= 0.2
        assert 1 < found["concurrent"]["peak_in_flight"] <= 6

    def test_a_limit_of_calls_at_once_is_no_failure(
        self, test: Callable[..., Ended], configure: Callable[..., None], fake_ollama: FakeOllama
    ) -> None:
        configure(MAX_CONCURRENCY=2)
        assert test().code == 0
        assert fake_ollama.peak_in_flight <= 2

    def test_the_document_has_all_keys_and_nothing_else_is_on_stdout(
        self, test: Callable[..., Ended]
    ) -> None:
        found = json.loads(test("--format=json").out)
        assert list(found) == KEYS
        assert list(found["sequential"]) == [
            *("sent", "answered", "unfinished", "success_rate", "latency", "first_token", "total"),
            *("requests_per_second", "retries", "hops", "passed_by", "answered_by"),
            *("peak_in_flight", "failures"),
        ]
        latency = found["sequential"]["latency"]
        assert list(latency) == ["average", "min", "max", "p95"]
        assert 0 < latency["min"] <= latency["average"] <= latency["max"] < 30
        assert found["proven"] == CLAIMS

    def test_wrong_settings_are_a_code_and_a_document(
        self, test: Callable[..., Ended], configure: Callable[..., None]
    ) -> None:
        configure(TIMEOUT="soon")
        ended = test("--format=json")
        found = json.loads(ended.out)
        assert ended.code == found["exit_code"] == 3
        assert list(found) == KEYS
        assert found["error"]["code"] == "misconfigured"
        assert "TIMEOUT must be a number" in found["error"]["message"]
        assert "TIMEOUT must be a number" in ended.err
        assert max(map(len, ended.err.splitlines())) <= 80

    @pytest.mark.parametrize("word", ["--requests=0", "--concurrency=1", "--min-success=0"])
    def test_wrong_arguments_are_a_code(self, run: Run, word: str) -> None:
        ended = run(NAME, word)
        assert (ended.code, ended.out) == (2, "")
        assert word.partition("=")[0] in ended.err

    def test_colours_are_for_terminals_only(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "\x1b[32;1mok\x1b[0m" in test("--force-color").out
        assert "\x1b" not in test().out
        assert "\x1b" not in test("--no-color", terminal=True).out
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in test(terminal=True).out
        assert "\x1b[32;1mok" in test("--force-color").out  # said more clearly

    def test_its_calls_are_logged_only_where_that_is_wished(
        self, test: Callable[..., Ended], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        test()
        assert not [each for each in caplog.records if each.name.startswith("ollama_bridge")]
        test("--verbosity=2")
        told = [each.getMessage() for each in caplog.records]
        # Those to the server, and none of the drills.
        assert len([line for line in told if line.startswith("Generating response")]) == 4 + 6

    def test_the_opening_of_the_real_circuit_is_logged(
        self, run: Run, fake_ollama: FakeOllama, caplog: pytest.LogCaptureFixture
    ) -> None:
        with dying(fake_ollama, chats=1):
            run(NAME, "--requests=10")
        told = [each.getMessage() for each in caplog.records]
        assert told == ["Circuit breaker: Opening circuit after 5 failures"]

    def test_no_question_and_no_answer_is_shown(
        self, run: Run, configure: Callable[..., None]
    ) -> None:
        with FakeOllama(answer="canary of an answer") as server:
            configure(BASE_URL=server.url, SYSTEM_PROMPT="canary of a prompt", API_KEY="canary-key")
            for words in ((), ("--format=json",), ("--verbosity=2",)):
                ended = run(NAME, *FEW, *words)
                assert "canary" not in ended.out + ended.err
                assert "reply with" not in ended.out + ended.err
            first, second = (chat.prompt for chat in server.chats[:2])
            assert first != second  # so no cache on the way can answer

    def test_a_machine_without_loopback_is_told(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object) -> None:
            raise OSError(99, "Cannot assign requested address")

        monkeypatch.setattr(drills, "rig", refused)
        ended = test()
        assert ended.code == 1
        assert "pooling     not run  no drill on 127.0.0.1: Cannot assign" in ended.out
