"""What the evidence proves. Pure: the same evidence always gets the same verdict.

A part has passed where

- health: the report is not "unhealthy";
- sequential, concurrent: at least ``min_success`` percent of the calls to the configured server
  were answered; and at least two of the concurrent callers were there at the same time;
- pooling: calls of a client, one after the other, were all answered over a single connection;
- retries: a server that fails each first attempt was survived by every call, with exactly one
  repeat each;
- recovery: each step of the drill went as it should: a healthy server answers; it is killed, and
  the circuit opens after ``FAILURE_THRESHOLD`` failed calls; while it is open, calls are refused
  and no request reaches the server, which is back; then one call is let through while another is
  refused; it closes the circuit, and calls are answered again;
- cuts (where answers come as streams): every stream that a server broke off in its middle ended as
  ``StreamInterrupted`` with the text that had come, and none was repeated.

All of that goes for the form in which the questions were asked: ``chat``, ``stream``, or their
async twins.

What each part proves by passing is in ``verdict.CLAIMS``. All is well where every part has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ..errors import CircuitOpen
from . import proofs
from .verdict import Code, Result, Sentence, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..core.health import HealthReport
    from .evidence import CallPart, Evidence, Part
    from .plan import Plan
    from .tally import Figures

F = TypeVar("F")


def judge(evidence: Evidence, plan: Plan) -> Verdict:
    """Say which parts have passed, and with which code the command ends."""
    results = [
        _health(evidence),
        _calls("sequential", evidence, plan),
        _calls("concurrent", evidence, plan),
        _drill("pooling", evidence, evidence.pooling, proofs.pooling),
        _drill("retries", evidence, evidence.retries, proofs.retries),
        _drill("recovery", evidence, evidence.recovery, proofs.recovery),
    ]
    if plan.streams:
        results.append(_drill("cuts", evidence, evidence.cuts, proofs.cuts))
    return Verdict(tuple(results), _code(evidence, results))


def _code(evidence: Evidence, results: Sequence[Result]) -> Code:
    if evidence.cut is not None:
        return Code.INTERRUPTED
    if evidence.health is not None and not evidence.health.reachable:
        return Code.NO_SERVER
    passed = all(each.state == "passed" for each in results)
    return Code.PASSED if passed else Code.FAILED


def _health(evidence: Evidence) -> Result:
    report = evidence.health
    if report is None:
        return _void("health", evidence)
    if report.error is None:
        return Result("health", (Sentence(good=True, text=_greeting(report)),))
    sentences = [Sentence(good=False, text=str(report.error))]
    if isinstance(report.error, CircuitOpen) and evidence.mode == "forced_open":
        remedy = "Reset it in the admin, or in code: ollama_client.circuit_breaker.reset()"
        sentences.append(Sentence(good=False, text=remedy))
    return Result("health", tuple(sentences))


def _greeting(report: HealthReport) -> str:
    version = f"Ollama {report.version}" if report.version else "the server"
    also = "" if report.status == "healthy" else f", but it is {report.status}"
    return f"{version} answers, and has {report.model}{also}"


def _calls(part: CallPart, evidence: Evidence, plan: Plan) -> Result:
    figures = evidence.calls.get(part)
    if figures is None or evidence.cut == part:
        return _void(part, evidence)
    rate = figures.success_rate
    enough = rate is not None and rate >= plan.min_success
    text = f"{figures.answered} of {figures.sent} calls answered"
    if not enough:
        text += f", {plan.min_success:g} % wanted"
        return Result(part, (Sentence(good=False, text=text),))
    answered = Sentence(good=True, text=text)
    return Result(part, (answered, _overlap(figures)) if part == "concurrent" else (answered,))


def _overlap(figures: Figures) -> Sentence:
    if figures.peak > 1:
        return Sentence(good=True, text=f"up to {figures.peak} callers at the same time")
    return Sentence(good=False, text="no two callers were there at the same time")


def _drill(
    part: Part, evidence: Evidence, found: F | None, judged: Callable[[F], tuple[Sentence, ...]]
) -> Result:
    return _void(part, evidence) if found is None else Result(part, judged(found))


def _void(part: Part, evidence: Evidence) -> Result:
    """Say why a part did not run, or not to its end."""
    if evidence.cut == part:
        return Result(part, (), "interrupted")
    why = evidence.trouble.get(part) or _hindrance(evidence)
    return Result(part, (Sentence(good=False, text=why),), "not run")


def _hindrance(evidence: Evidence) -> str:
    if evidence.cut is not None:
        return "interrupted before"
    if evidence.health is not None and not evidence.health.reachable:
        return "there is no server to call"
    return "not while health is bad"
