"""``manage.py ollama_reliability_test`` with ``--failover``, and at several endpoints."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from ollama_bridge import ollama_client
from ollama_bridge.management.commands import ollama_reliability_test
from ollama_bridge.reliability import failover as drill
from ollama_bridge.reliability.evidence import Failover
from ollama_bridge.reliability.plan import PROFILES
from ollama_bridge.testing import FakeOllama, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Ended, Run

NAME = "ollama_reliability_test"
FEW = ("--requests=4", "--concurrency=6")

pytestmark = pytest.mark.usefixtures("configure", "_no_time_for_recovery")


@pytest.fixture
def test(run: Run) -> Callable[..., Ended]:
    """Run the command with few calls."""
    return lambda *words, **options: run(NAME, *FEW, *words, **options)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, int]]:
    """Hold no drill; return the chaos and the seed of each that should have been held."""
    taken: list[tuple[str | None, int]] = []

    def hold(_asker: object, plan: Any, *_: object) -> None:
        taken.append((plan.chaos, plan.seed))

    monkeypatch.setattr("ollama_bridge.reliability.trial.failover", hold)
    return taken


class TestTheArguments:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (
                ["--chaos=slow"],
                "--chaos is of the failover drill. Type: --failover --chaos slow",
            ),
            (["--seed=7"], "--seed is of the failover drill. Type: --failover --seed 7"),
            (["--failover", "--chaos=wild"], "argument --chaos: invalid choice: 'wild'"),
            (["--failover", "--seed=-1"], "--seed must be from 0 to 4294967295."),
            (
                ["--failover", "--duration=5"],
                "--duration must be at least 8 seconds with --chaos mixed.",
            ),
        ],
    )
    def test_that_are_wrong_are_told_with_what_to_type(
        self, run: Run, words: list[str], told: str
    ) -> None:
        ended = run(NAME, *words)
        assert (ended.out, told in ended.err) == ("", True), ended.err
        assert ended.code in {1, 2}  # 2 at the shell, where Django does not raise for choices

    def test_are_all_in_the_help(self) -> None:
        parser = ollama_reliability_test.Command().create_parser("manage.py", NAME)
        told = " ".join(parser.format_help().split())
        assert f"how they misbehave: {', '.join(PROFILES)} (default: mixed)" in told
        assert not [profile for profile in PROFILES if f" {profile} " not in told]

    @pytest.mark.parametrize(
        ("words", "chaos"),
        [([], "mixed"), (["--chaos=dying"], "dying"), (["--chaos=mixed"], "mixed")],
    )
    def test_mean_mixed_chaos_unless_another_is_named(
        self,
        test: Callable[..., Ended],
        plans: list[tuple[str | None, int]],
        words: list[str],
        chaos: str,
    ) -> None:
        test("--failover", *words, "--seed=7")
        assert plans == [(chaos, 7)]

    def test_hold_no_drill_unless_it_is_wanted(
        self, test: Callable[..., Ended], plans: list[tuple[str | None, int]]
    ) -> None:
        found = json.loads(test("--format=json").out)
        assert plans == []
        assert found["failover"] is None
        assert (found["plan"]["chaos"], found["plan"]["seed"]) == (None, None)
        assert "failover" not in {each["part"] for each in found["results"]}

    def test_leave_the_seed_to_chance_and_the_document_tells_it(
        self, test: Callable[..., Ended], plans: list[tuple[str | None, int]]
    ) -> None:
        seeds = [
            json.loads(test("--failover", "--format=json").out)["plan"]["seed"] for _ in range(5)
        ]
        assert [seed for _, seed in plans] == seeds
        assert len(set(seeds)) > 1


class TestTheDrill:
    def test_is_a_part_with_a_row_and_a_claim(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        ended = test("--failover", "--chaos=flaky", "--seed=7", "--duration=2")
        assert ended.code == 0
        assert ended.lines[-1] == "  endpoint failover: flaky endpoints"
        (row,) = [line for line in ended.lines if re.match(r"failover +\d", line)]
        assert " 100 % " in row
        assert re.search(r"failover: answered by a \d+, b \d+, c \d+\n", ended.out)
        assert "failover: the same chaos again with --chaos flaky --seed 7" in ended.lines
        assert max(map(len, ended.lines)) <= 80
        assert ended.err.splitlines()[-1].startswith("failover: ")
        assert "failover: 6 callers, 3 endpoints, flaky chaos" in ended.err
        # The two seconds of callers at once, and no call of the drill.
        assert {"failover" in chat.prompt for chat in fake_ollama.chats} == {False}

    def test_has_all_its_facts_in_the_document(self, test: Callable[..., Ended]) -> None:
        words = ("--failover", "--chaos=rate-limited", "--seed=7", "--duration=2")
        ended = test(*words, "--format=json")
        told = json.loads(ended.out)
        assert (ended.code, told["passed"]) == (0, True)
        assert told["proven"][-1] == "endpoint failover"
        assert told["plan"]["chaos"] == told["failover"]["profile"] == "rate-limited"
        help_ = ollama_reliability_test.Command.epilog
        ours = {each.name for each in fields(Failover)} - {"max_retries", "threshold"}
        assert not [name for name in ours if f'"{name}"' not in help_]
        assert told["failover"]["requests"]["a"] == told["failover"]["held"]
        assert told["results"][-1]["state"] == "passed"

    def test_is_held_where_there_is_no_server(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        ended = test("--failover", "--chaos=flaky", "--duration=2")
        assert ended.code == 3
        assert ended.lines[-1] == "  endpoint failover: flaky endpoints"

    def test_that_proves_nothing_is_a_failure(
        self, test: Callable[..., Ended], configure: Callable[..., None]
    ) -> None:
        configure(FAILURE_THRESHOLD=1)
        ended = test("--failover", "--chaos=flaky", "--duration=2")
        assert ended.code == 1
        told = " ".join(ended.out.split())
        assert "NOT PASSED: failover" in told
        assert "FAILURE_THRESHOLD is 1, so circuits open soon. Set it to 5" in told
        assert "endpoint failover" not in told

    def test_has_twenty_callers_at_most(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        callers: list[int] = []

        def hold(_asker: object, _plan: object, found: Failover, *_: object) -> None:
            callers.append(found.callers)

        monkeypatch.setattr("ollama_bridge.reliability.trial.failover", hold)
        for number in (2, 20, 60):
            run(NAME, "--failover", f"--concurrency={number}")
        assert callers == [2, 20, 20]

    def test_on_a_machine_without_loopback_says_so(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(99, "Cannot assign requested address")

        monkeypatch.setattr(drill, "rig_of_several", refused)
        ended = test("--failover")
        assert ended.code == 1
        assert "failover    not run  no drill on 127.0.0.1: Cannot assign" in ended.out
        assert json.loads(test("--failover", "--format=json").out)["failover"] is None

    def test_is_interrupted_with_what_was_found(
        self, test: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ollama_bridge.management.progress import PlainLines  # noqa: PLC0415

        def interrupted(_: PlainLines, _done: float, note: str = "") -> None:
            if note.startswith("slow, ") and int(note.split()[1]) > 6:
                raise KeyboardInterrupt

        monkeypatch.setattr(PlainLines, "update", interrupted)
        ended = test("--failover", "--chaos=slow", "--format=json")
        told = json.loads(ended.out)
        assert ended.code == told["exit_code"] == 130
        assert told["results"][-1]["state"] == "interrupted"
        found = told["failover"]
        assert found["sent"] == found["answered"] + found["unfinished"] > 6
        assert (found["acts"], found["failures"]) == (["slow"], [])
        assert "endpoint failover" not in told["proven"]


class TestASiteWithSeveralEndpoints:
    @pytest.fixture
    def second(self) -> Iterator[FakeOllama]:
        with FakeOllama() as server:
            yield server

    @pytest.fixture(autouse=True)
    def _two(
        self, configure: Callable[..., None], fake_ollama: FakeOllama, second: FakeOllama
    ) -> None:
        configure(
            ENDPOINTS={"gpu": {"BASE_URL": fake_ollama.url}, "cpu": {"BASE_URL": second.url}},
            ROUTES={"default": {"TARGETS": ["gpu", "cpu"]}},
        )

    def test_is_told_of_each(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama, second: FakeOllama
    ) -> None:
        ended = test()
        assert ended.code == 0
        title = f"Reliability of gpu at {fake_ollama.url}, cpu at {second.url}"
        assert " ".join(ended.out.split()).startswith(title)
        assert "health      ok  gpu: Ollama 0.24.0 answers, and has llama3.2" in ended.lines
        assert "                cpu: Ollama 0.24.0 answers, and has llama3.2" in ended.lines
        assert f"health: asking {fake_ollama.url}, {second.url}" in ended.err
        assert "hop" not in ended.out
        assert second.chats == []

    def test_passes_by_hops_where_one_is_dead(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama, second: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        ended = test()
        assert ended.code == 0
        told = " ".join(ended.out.split())
        assert "degraded: the default route serves, but something else does not" in told
        assert f"gpu: Cannot connect to Ollama at {fake_ollama.url}. Start it with:" in told
        assert "sequential: 4 hops, 0 times past an endpoint that was held back" in ended.lines
        assert "sequential: answered by cpu 4" in ended.lines
        assert re.search(r"concurrent: \d hops?, \d times? past", ended.out)
        assert len(second.chats) == 4 + 6

    def test_fails_where_both_are_dead(
        self, test: Callable[..., Ended], fake_ollama: FakeOllama, second: FakeOllama
    ) -> None:
        fake_ollama.refuse()
        second.refuse()
        ended = test("--format=json")
        told = json.loads(ended.out)
        assert ended.code == 3
        errors = [each["error"]["code"] for each in told["health"]["endpoints"]]
        assert errors == ["connection_failed"] * 2

    def test_has_the_endpoint_to_reset_named(self, test: Callable[..., Ended]) -> None:
        ollama_client.circuit_breakers["cpu"].force_open()
        told = " ".join(test().out.split())
        assert 'ollama_client.circuit_breakers["cpu"].reset()' in told

    def test_logs_no_hop_unless_that_is_wished(
        self,
        test: Callable[..., Ended],
        fake_ollama: FakeOllama,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        fake_ollama.misbehave(faults.unavailable())
        test("--concurrency=2")
        assert "llm_failover" not in caplog.text
        ollama_client.circuit_breakers["gpu"].reset()
        test("--verbosity=2", "--concurrency=2")
        assert "llm_failover from gpu/llama3.2 to cpu/llama3.2: " in caplog.text

    def test_holds_the_drill_all_the_same(self, test: Callable[..., Ended]) -> None:
        ended = test("--failover", "--chaos=flaky", "--duration=2")
        assert ended.code == 0
        assert ended.lines[-1] == "  endpoint failover: flaky endpoints"
