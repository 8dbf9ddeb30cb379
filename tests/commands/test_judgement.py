"""What evidence proves, and what it does not."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from ollama_bridge import CircuitOpen, ConnectionFailed, ModelNotFound, OllamaBridgeError
from ollama_bridge.core.breaker import State
from ollama_bridge.core.health import HealthReport
from ollama_bridge.reliability.document import document
from ollama_bridge.reliability.evidence import (
    Cuts,
    Evidence,
    Part,
    Pooling,
    Recovery,
    Retrying,
)
from ollama_bridge.reliability.judgement import judge
from ollama_bridge.reliability.plan import Plan
from ollama_bridge.reliability.table import lines
from ollama_bridge.reliability.tally import Figures, Times
from ollama_bridge.reliability.verdict import Code, Result, Verdict

from .conftest import GOOD_RECOVERY

PLAN = Plan()
STREAMING = Plan(form="stream")
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
    ],
)
def test_a_plan_out_of_range_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Plan(**wrong)


def test_all_passed_is_said_only_where_all_has_passed() -> None:
    def told(found: Evidence) -> list[str]:
        return lines(found, judge(found, PLAN), "Title", lambda _, text: text)

    good, bad = told(evidence()), told(evidence(recovery=None))
    assert good[-5:] == ["ALL TESTS PASSED!", *(f"  {claim}" for claim in CLAIMS)]
    assert not [line for line in bad if "ALL TESTS PASSED" in line or "circuit breaker" in line]
    assert bad[-5:-3] == ["NOT PASSED: recovery", "Proven all the same:"]
