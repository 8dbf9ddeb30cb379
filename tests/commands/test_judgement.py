"""What evidence proves, and what it does not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest

from ollama_bridge import CircuitOpen, ConnectionFailed, ModelNotFound, OllamaBridgeError
from ollama_bridge.core.breaker import State
from ollama_bridge.core.health import EndpointHealth, HealthReport
from ollama_bridge.reliability.document import document
from ollama_bridge.reliability.evidence import (
    Cuts,
    Evidence,
    Failover,
    Part,
    Pooling,
    Recovery,
    Retrying,
)
from ollama_bridge.reliability.judgement import judge
from ollama_bridge.reliability.plan import Plan
from ollama_bridge.reliability.table import lines
from ollama_bridge.reliability.tally import Failure, Figures, Times
from ollama_bridge.reliability.verdict import Code, Result, Verdict

from .conftest import GOOD_FAILOVER, GOOD_RECOVERY

PLAN = Plan()
STREAMING = Plan(form="stream")
CHAOS = Plan(chaos="mixed", seed=7)
CLAIMS = (
    "connection pooling",
    "retry logic",
    "circuit breaker pattern",
    "concurrent request handling",
)


def report(error: OllamaBridgeError | None = None, **changes: Any) -> HealthReport:
    facts: dict[str, Any] = {
        "status": "unhealthy" if error else "healthy",
        "endpoint": "default",
        "url": "http://127.0.0.1:11434",
        "model": "llama3.2",
        "reachable": True,
        "circuit": State.CLOSED,
        "latency": 0.01,
        "version": "0.24.0",
        "error": error,
    }
    return HealthReport(**{**facts, **changes})


def figures(**changes: Any) -> Figures:
    facts = {"sent": 20, "answered": 20, "latency": Times(average=1.0), "total": 2.0, "peak": 7}
    return Figures(**{**facts, **changes})


def evidence(**changes: Any) -> Evidence:
    facts: dict[str, Any] = {
        "health": report(),
        "calls": {"sequential": figures(peak=1), "concurrent": figures()},
        "pooling": Pooling(calls=10, answered=10, requests=10, connections=1),
        "retries": Retrying(
            max_retries=3, status=503, calls=10, answered=10, requests=20, retries=10
        ),
        "recovery": Recovery(**GOOD_RECOVERY),  # type: ignore[arg-type]  # a plain table
    }
    return Evidence(**{**facts, **changes})


def result_of(verdict: Verdict, part: Part) -> Result:
    return next(each for each in verdict.results if each.part == part)


def said(verdict: Verdict, part: Part) -> str:
    return " | ".join(each.text for each in result_of(verdict, part).sentences)


def test_where_every_part_has_passed_all_is_proven() -> None:
    verdict = judge(evidence(), PLAN)
    assert verdict.code == Code.PASSED
    assert verdict.passed
    assert verdict.proven == CLAIMS
    assert {each.state for each in verdict.results} == {"passed"}


@pytest.mark.parametrize(
    "changes", [{"answered": 9}, {"requests": 11}, {"connections": 2}, {"connections": 10}]
)
def test_pooling_is_one_connection_for_all_calls(changes: dict[str, int]) -> None:
    good = evidence().pooling
    assert good is not None
    verdict = judge(evidence(pooling=replace(good, **changes)), PLAN)
    assert verdict.code == Code.FAILED
    assert verdict.proven == CLAIMS[1:]


@pytest.mark.parametrize(
    "changes", [{"answered": 9}, {"requests": 10}, {"requests": 30}, {"retries": 0}]
)
def test_retry_logic_is_one_repeat_for_each_call(changes: dict[str, int]) -> None:
    good = evidence().retries
    assert good is not None
    verdict = judge(evidence(retries=replace(good, **changes)), PLAN)
    assert verdict.code == Code.FAILED
    assert "retry logic" not in verdict.proven


@pytest.mark.parametrize(
    ("facts", "remedy"),
    [
        (Retrying(max_retries=0, status=503), "MAX_RETRIES is 0. Set it to 3, say"),
        (Retrying(max_retries=3, status=None), "RETRY_STATUSES lacks 503. Add it"),
    ],
)
def test_settings_that_repeat_nothing_prove_nothing(facts: Retrying, remedy: str) -> None:
    verdict = judge(evidence(retries=facts), PLAN)
    assert said(verdict, "retries") == remedy
    assert "retry logic" not in verdict.proven


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "9 of 9 streams that broke off told as interrupted, 0 repeats"),
        ({"told": 8}, "8 of 9 streams that broke off told as interrupted, 0 repeats"),
        ({"requests": 10}, "9 of 9 streams that broke off told as interrupted, 1 repeat"),
    ],
)
def test_errors_in_mid_stream_are_handled_where_each_is_told_and_nothing_repeated(
    changes: dict[str, int], sentence: str
) -> None:
    facts = Cuts(**{"calls": 9, "told": 9, "requests": 9, **changes})
    verdict = judge(evidence(cuts=facts), STREAMING)
    assert verdict.passed == (not changes)
    assert ("mid-stream error handling" in verdict.proven) == (not changes)
    assert said(verdict, "cuts") == sentence


def test_streams_that_break_off_are_a_part_of_streams_only() -> None:
    assert [each.part for each in judge(evidence(), PLAN).results][-1] == "recovery"
    verdict = judge(evidence(), STREAMING)
    assert result_of(verdict, "cuts").state == "not run"
    assert verdict.code == Code.FAILED
    assert verdict.proven == CLAIMS


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"enabled": False}, "CIRCUIT_BREAKER is off. Set it to True"),
        ({"healthy": 2}, "healthy server: 2 of 3 answered"),
        ({"opened": False}, "server killed: circuit still closed after 5 failed calls"),
        ({"failed": 1}, "server killed: circuit open after 1 failed call"),
        ({"refused": 2}, "server back: 2 of 3 refused while open, 0 requests sent"),
        ({"leaked": 1}, "server back: 3 of 3 refused while open, 1 request sent"),
        ({"probes": 0, "held_back": False}, "after 1.3 s: no call was let through"),
        ({"probes": 2}, "after 1.3 s: 2 probes, others refused meanwhile"),
        ({"held_back": False}, "after 1.3 s: 1 probe, and others were let through too"),
        ({"closed": False, "again": 0}, "circuit not closed: 0 of 3 answered"),
        ({"again": 2}, "circuit closed: 2 of 3 answered"),
    ],
)
def test_the_circuit_breaker_is_proven_by_every_step_of_the_drill(
    changes: dict[str, Any], sentence: str
) -> None:
    facts = Recovery(**{**GOOD_RECOVERY, **changes})
    verdict = judge(evidence(recovery=facts), PLAN)
    assert verdict.code == Code.FAILED
    assert "circuit breaker pattern" not in verdict.proven
    # The steps after one that went wrong are not told.
    assert said(verdict, "recovery").split(" | ")[-1] == sentence


def test_every_fact_of_the_drill_matters() -> None:
    told = {"enabled", "healthy", "failed", "opened", "refused", "leaked", "probes", "held_back"}
    told |= {"closed", "again"}
    assert {each.name for each in fields(Recovery)} == told | {"threshold", "waited"}


def test_many_failures_may_open_the_circuit_before_the_threshold() -> None:
    """Half of at least 20 calls within a minute is the other rule of the circuit."""
    facts = Recovery(**{**GOOD_RECOVERY, "threshold": 1000, "failed": 17})  # type: ignore[arg-type]
    assert judge(evidence(recovery=facts), PLAN).passed


def chaotic(answered: int = 1800, hops: int = 300, **changes: Any) -> Evidence:
    """Return the evidence of a good failover drill, but for these changes."""
    met = {"a": answered - 900, "b": 600, "c": 300}
    of_drill = figures(
        sent=1800, answered=answered, hops=hops, passed_by=40, answered_by=met, retries=2, peak=20
    )
    facts = Failover(**{**GOOD_FAILOVER, **changes})
    return evidence(calls={**evidence().calls, "failover": of_drill}, failover=facts)


def test_failover_is_proven_by_all_calls_answered_in_all_that_chaos() -> None:
    verdict = judge(chaotic(), CHAOS)
    assert verdict.passed
    assert verdict.proven == (*CLAIMS, "endpoint failover")
    shown = "endpoint failover: flaky, slow, dying and rate-limited endpoints"
    assert verdict.shown == (*CLAIMS, shown)
    assert result_of(verdict, "failover").sentences[0].text == "1800 of 1800 calls answered"


@pytest.mark.parametrize("act", ["flaky", "slow", "dying", "rate-limited"])
def test_what_was_shown_is_only_what_there_was(act: str) -> None:
    verdict = judge(chaotic(acts=[act]), CHAOS)
    assert verdict.shown[-1] == f"endpoint failover: {act} endpoints"
    assert len(result_of(verdict, "failover").sentences) == 3
    assert said(verdict, "failover").split(" | ")[2].startswith(f"{act}: ")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"answered": 1799}, "1799 of 1800 calls answered, 100 % wanted"),
        ({"hops": 0}, "0 hops to another endpoint after a failed request"),
        (
            {"troubles": Counter({"503": 1, "stall": 1, "drip": 1, "too many at once": 1})},
            "flaky: each odd request of each endpoint failed: 1 by 503, 0 by a reset",
        ),
        (
            {"troubles": Counter({"503": 1, "reset": 1, "stall": 1, "too many at once": 1})},
            "slow: two endpoints were slower than their TIMEOUT: 1 requests stalled, 0 dripped",
        ),
        (
            {"returns": 0},
            "dying: an endpoint was killed 3 times, and came back to serve 0 times",
        ),
        (
            {"held": 26},
            "got 26 requests, 21 before that was known and 5 after a cooldown each; ",
        ),
        (
            {"held": 20, "probes": 1},
            "got 20 requests, 20 before that was known and 0 after a cooldown each; ",
        ),
        (
            {"troubles": Counter({**GOOD_FAILOVER["troubles"], "too many at once": 0})},
            "; another refused 0 as too many at once",
        ),
        (
            {"held": 0, "probes": 0},
            "got 0 requests, 0 before that was known and 0 after a cooldown each; ",
        ),
    ],
)
def test_failover_is_not_proven_without_any_of_it(changes: dict[str, Any], sentence: str) -> None:
    verdict = judge(chaotic(**changes), CHAOS)
    assert verdict.code == Code.FAILED
    assert "endpoint failover" not in verdict.proven
    (bad,) = [each.text for each in result_of(verdict, "failover").sentences if not each.good]
    assert sentence in bad


@pytest.mark.parametrize(
    ("changes", "remedies"),
    [
        ({}, []),
        ({"max_retries": 0}, ["MAX_RETRIES is 0. Set it to 3, say"]),
        (
            {"threshold": 1},
            ["FAILURE_THRESHOLD is 1, so circuits open soon. Set it to 5"],
        ),
    ],
)
def test_settings_that_may_be_why_are_named_where_calls_failed(
    changes: dict[str, int], remedies: list[str]
) -> None:
    failed = judge(chaotic(answered=1700, **changes), CHAOS)
    told = [each.text for each in result_of(failed, "failover").sentences if not each.good]
    assert told[1:] == remedies
    assert judge(chaotic(**changes), CHAOS).passed


def test_as_many_calls_of_the_drill_must_be_answered_as_was_wanted() -> None:
    almost = chaotic(answered=1710)
    assert judge(almost, Plan(chaos="mixed", min_success=95)).passed
    assert not judge(almost, Plan(chaos="mixed", min_success=95.5)).passed


def test_failover_is_a_part_only_where_it_was_asked_for() -> None:
    assert "failover" not in {each.part for each in judge(chaotic(), PLAN).results}
    verdict = judge(evidence(), CHAOS)
    assert result_of(verdict, "failover").state == "not run"
    assert verdict.code == Code.FAILED


def test_an_interrupted_failover_keeps_its_figures_and_proves_nothing() -> None:
    cut = replace(chaotic(), cut="failover")
    verdict = judge(cut, CHAOS)
    assert verdict.code == Code.INTERRUPTED
    assert result_of(verdict, "failover").state == "interrupted"
    assert verdict.proven == CLAIMS
    told = lines(cut, verdict, "Title", lambda _, text: text)
    assert "failover: answered by a 900, b 600, c 300" in told
    assert document(cut, verdict, CHAOS)["failover"]["answered"] == 1800


def test_the_report_of_a_failover_has_all_that_was_counted() -> None:
    found = chaotic()
    told = lines(found, judge(found, CHAOS), "Title", lambda _, text: text)
    assert [line for line in told if line.startswith("failover: ")] == [
        "failover: 2 retries needed",
        "failover: 300 hops, 40 times past an endpoint that was held back",
        "failover: answered by a 900, b 600, c 300",
        "failover: circuits opened 5 times (a 4, b 1)",
        "failover: 6 cooldowns (a 6)",
        "failover: the same chaos again with --chaos mixed --seed 7",
    ]
    assert max(map(len, told)) <= 80
    assert told[-1] == "  endpoint failover: flaky, slow, dying and rate-limited endpoints"


def test_the_document_of_a_failover_has_its_figures_and_its_facts() -> None:
    found = chaotic()
    told = document(found, judge(found, CHAOS), CHAOS)["failover"]
    names = [each.name for each in fields(Failover)]
    assert [name for name in told if name in names] == names
    assert {name: told[name] for name in names} == GOOD_FAILOVER
    assert json.loads(json.dumps(told)) == told
    assert (told["sent"], told["hops"], told["passed_by"]) == (1800, 300, 40)
    assert told["answered_by"] == {"a": 900, "b": 600, "c": 300}


def test_what_fails_at_simulated_servers_comes_without_advice_about_them() -> None:
    found = chaotic(answered=1799)
    of_drill = replace(
        found.calls["failover"], failures=(Failure("timeout", 1, ("See the server's log",)),)
    )
    found.calls["failover"] = of_drill
    told = lines(found, judge(found, CHAOS), "Title", lambda _, text: text)
    assert "failover: 1 x timeout" in told
    assert not [line for line in told if "See the server's log" in line]


@pytest.mark.parametrize("part", ["sequential", "concurrent"])
def test_as_many_calls_must_be_answered_as_was_wanted(part: str) -> None:
    calls: dict[Any, Figures] = {**evidence().calls, part: figures(answered=19)}
    strict = judge(evidence(calls=calls), PLAN)
    assert strict.code == Code.FAILED
    assert "19 of 20 calls answered, 100 % wanted" in {
        said(strict, "sequential"),
        said(strict, "concurrent"),
    }
    assert judge(evidence(calls=calls), Plan(min_success=95)).passed
    assert not judge(evidence(calls=calls), Plan(min_success=95.5)).passed


def test_calls_that_never_met_prove_nothing_about_concurrency() -> None:
    calls = {**evidence().calls, "concurrent": figures(peak=1)}
    verdict = judge(evidence(calls=calls), PLAN)
    assert verdict.proven == CLAIMS[:3]
    assert "no two callers were there" in said(verdict, "concurrent")


def test_a_server_that_cannot_be_reached_has_a_code_of_its_own() -> None:
    dead = report(ConnectionFailed("Cannot connect. Start it"), reachable=False)
    verdict = judge(evidence(health=dead, calls={}), PLAN)
    assert verdict.code == Code.NO_SERVER
    assert result_of(verdict, "sequential").state == "not run"
    assert said(verdict, "concurrent") == "there is no server to call"
    assert verdict.proven == CLAIMS[:3]


def test_a_server_that_cannot_serve_is_a_part_that_failed() -> None:
    bare = report(ModelNotFound("Model m not found. Run: ollama pull m"))
    verdict = judge(evidence(health=bare, calls={}), PLAN)
    assert verdict.code == Code.FAILED
    assert said(verdict, "health") == "Model m not found. Run: ollama pull m"
    assert said(verdict, "sequential") == "not while health is bad"


def of_endpoint(name: str, error: OllamaBridgeError | None = None, **changes: Any) -> Any:
    """Return the health of one of several endpoints."""
    facts = {
        "status": "unhealthy" if error else "healthy",
        "endpoint": name,
        "url": f"http://{name}:11434",
        "model": "llama3.2",
        "reachable": True,
        "circuit": State.CLOSED,
        "latency": 0.01,
        "version": "0.24.0",
        "error": error,
    }
    return EndpointHealth(**{**facts, **changes})


class TestHealthOfSeveralEndpoints:
    dead = ConnectionFailed("Cannot connect. Start it", endpoint="gpu")

    def judged(self, found: HealthReport, **changes: Any) -> Verdict:
        modes = dict.fromkeys(found.endpoints, "auto")
        return judge(evidence(**{"health": found, "modes": modes, **changes}), PLAN)

    def test_has_a_sentence_for_each(self) -> None:
        both = {name: of_endpoint(name) for name in ("cpu", "gpu")}
        verdict = self.judged(report(endpoints=both))
        assert verdict.passed
        assert said(verdict, "health") == (
            "cpu: Ollama 0.24.0 answers, and has llama3.2 | "
            "gpu: Ollama 0.24.0 answers, and has llama3.2"
        )

    def test_passes_where_the_default_route_can_serve(self) -> None:
        both = {"cpu": of_endpoint("cpu"), "gpu": of_endpoint("gpu", self.dead)}
        verdict = self.judged(report(status="degraded", endpoints=both))
        assert result_of(verdict, "health").state == "passed"
        assert said(verdict, "health").split(" | ") == [
            "degraded: the default route serves, but something else does not",
            "cpu: Ollama 0.24.0 answers, and has llama3.2",
            "gpu: Cannot connect. Start it",
        ]

    def test_fails_where_none_can_serve(self) -> None:
        both = {name: of_endpoint(name, self.dead, reachable=False) for name in ("cpu", "gpu")}
        verdict = self.judged(report(self.dead, reachable=False, endpoints=both), calls={})
        assert verdict.code == Code.NO_SERVER
        assert said(verdict, "health").count("Cannot connect. Start it") == 2

    def test_says_what_is_wrong_with_the_route_where_the_endpoints_do_not(self) -> None:
        missing = ModelNotFound("Model m not found. Run: ollama pull m")
        both = {name: of_endpoint(name, status="degraded") for name in ("cpu", "gpu")}
        verdict = self.judged(report(missing, endpoints=both), calls={})
        assert said(verdict, "health").startswith("Model m not found. Run: ollama pull m | cpu: ")

    def test_names_the_circuit_that_is_to_be_reset(self) -> None:
        opened = CircuitOpen("OPEN")
        both = {"cpu": of_endpoint("cpu"), "gpu": of_endpoint("gpu", opened)}
        verdict = self.judged(
            report(status="degraded", endpoints=both), modes={"cpu": "auto", "gpu": "forced_open"}
        )
        remedy = 'in code: ollama_client.circuit_breakers["gpu"].reset()'
        assert said(verdict, "health").endswith(remedy)
        assert said(verdict, "health").count("reset()") == 1

    def test_is_told_of_each_in_the_document(self) -> None:
        both = {"cpu": of_endpoint("cpu"), "gpu": of_endpoint("gpu", self.dead)}
        found = evidence(
            health=report(endpoints=both), modes={"cpu": "auto", "gpu": "disabled"}, mode="auto"
        )
        told = document(found, judge(found, PLAN), PLAN)["health"]
        assert [each["endpoint"] for each in told["endpoints"]] == ["cpu", "gpu"]
        assert [each["circuit"]["mode"] for each in told["endpoints"]] == ["auto", "disabled"]
        assert told["endpoints"][1]["error"]["code"] == "connection_failed"


def test_a_circuit_that_an_operator_opened_comes_with_what_to_do() -> None:
    forced = evidence(health=report(CircuitOpen("OPEN")), mode="forced_open", calls={})
    assert "ollama_client.circuit_breaker.reset()" in said(judge(forced, PLAN), "health")
    opened = evidence(health=report(CircuitOpen("OPEN")), calls={})
    assert said(judge(opened, PLAN), "health") == "OPEN"


def test_a_degraded_server_may_pass() -> None:
    verdict = judge(evidence(health=report(status="degraded", version="")), PLAN)
    assert verdict.passed
    assert said(verdict, "health") == "the server answers, and has llama3.2, but it is degraded"


def test_an_interrupt_outweighs_all_and_says_where_it_came() -> None:
    cut = evidence(
        calls={"sequential": figures(), "concurrent": figures(unfinished=3)},
        cut="concurrent",
        pooling=None,
        retries=None,
        recovery=None,
    )
    verdict = judge(cut, PLAN)
    assert verdict.code == Code.INTERRUPTED
    states = [each.state for each in verdict.results]
    assert states == ["passed", "passed", "interrupted", "not run", "not run", "not run"]
    assert verdict.proven == ()
    told = lines(cut, verdict, "Title", lambda _, text: text)
    assert "concurrent: 3 calls interrupted" in told
    assert "concurrent  interrupted" in told


def test_an_interrupt_before_anything_was_found_is_a_report_too() -> None:
    verdict = judge(Evidence(cut="health"), PLAN)
    assert verdict.code == Code.INTERRUPTED
    told = lines(Evidence(cut="health"), verdict, "Title", lambda _, text: text)
    assert told[2] == "health      interrupted"
    assert document(Evidence(cut="health"), verdict, PLAN)["health"] is None


def test_a_drill_that_could_not_be_held_says_why() -> None:
    verdict = judge(evidence(pooling=None, trouble={"pooling": "no drill here"}), PLAN)
    assert verdict.code == Code.FAILED
    assert result_of(verdict, "pooling").state == "not run"
    assert said(verdict, "pooling") == "no drill here"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"requests": 0}, "--requests must be at least 1"),
        ({"concurrency": 1}, "--concurrency must be from 2 to 1000"),
        ({"concurrency": 1001}, "--concurrency must be from 2 to 1000"),
        ({"duration": 0.0}, "--duration must be more than 0 seconds"),
        ({"duration": float("nan")}, "--duration must be more than 0 seconds"),
        ({"duration": float("inf")}, "at most 86400"),
        ({"min_success": 0.0}, "--min-success must be more than 0 percent"),
        ({"min_success": 100.1}, "at most 100"),
        ({"seed": -1}, "--seed must be from 0 to 4294967295"),
        ({"seed": 2**32}, "--seed must be from 0 to 4294967295"),
        (
            {"chaos": "flaky", "duration": 1.9},
            "--duration must be at least 2 seconds with --chaos flaky",
        ),
        (
            {"chaos": "mixed", "duration": 7.9},
            "--duration must be at least 8 seconds with --chaos mixed",
        ),
    ],
)
def test_a_plan_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan(**wrong)


@pytest.mark.parametrize(
    ("wanted", "acts", "seconds"),
    [
        ({}, 0, 0.0),
        ({"duration": 1.0}, 0, 1.0),
        ({"chaos": "slow"}, 1, 3.0),
        ({"chaos": "mixed"}, 4, 12.0),
        ({"chaos": "mixed", "duration": 60.0}, 4, 60.0),
    ],
)
def test_a_plan_knows_how_long_its_chaos_lasts(
    wanted: dict[str, Any], acts: int, seconds: float
) -> None:
    plan = Plan(**wanted)
    assert (len(plan.acts), plan.chaos_seconds) == (acts, seconds)


def test_all_passed_is_said_only_where_all_has_passed() -> None:
    def told(found: Evidence) -> list[str]:
        return lines(found, judge(found, PLAN), "Title", lambda _, text: text)

    good, bad = told(evidence()), told(evidence(recovery=None))
    assert good[-5:] == ["ALL TESTS PASSED!", *(f"  {claim}" for claim in CLAIMS)]
    assert not [line for line in bad if "ALL TESTS PASSED" in line or "circuit breaker" in line]
    assert bad[-5:-3] == ["NOT PASSED: recovery", "Proven all the same:"]
