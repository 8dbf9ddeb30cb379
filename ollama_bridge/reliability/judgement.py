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
- failover (where it was asked for): of the calls over three endpoints that misbehave at least
  ``min_success`` percent were answered, some of them after a failed request to another endpoint;
  each kind of chaos did happen; an endpoint that was killed and came back served again; and an
  account over its limit got no more requests than there were callers, and later one after each
  cooldown;
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
    from collections.abc import Callable, Iterator, Sequence

    from ..core.health import EndpointHealth, HealthReport
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
    if plan.acts:
        results.append(_failover(evidence, plan))
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
    good, found = bool(report), report.endpoints
    if len(found) > 1:
        texts = [f"{name}: {text}" for name, it in found.items() for text in _state(it, evidence)]
        texts[:0] = _of_all(report)
    else:
        texts = [*_state(report, evidence)]
    return Result("health", tuple(Sentence(good=good, text=text) for text in texts))


def _of_all(report: HealthReport) -> Iterator[str]:
    """Give what the endpoints do not say themselves."""
    if report.status == "degraded":
        yield "degraded: the default route serves, but something else does not"
    elif report.error is not None and all(it.error is None for it in report.endpoints.values()):
        yield str(report.error)


def _state(report: EndpointHealth, evidence: Evidence) -> Iterator[str]:
    """Give what an endpoint said, or what stands in its way and what to do about it."""
    if report.error is None:
        yield _greeting(report)
        return
    yield str(report.error)
    name, circuit, mode = report.endpoint, "circuit_breaker", evidence.mode
    if len(evidence.modes) > 1:
        circuit, mode = f'circuit_breakers["{name}"]', evidence.modes[name]
    if isinstance(report.error, CircuitOpen) and mode == "forced_open":
        yield f"Reset it in the admin, or in code: ollama_client.{circuit}.reset()"


def _greeting(report: EndpointHealth) -> str:
    version = f"Ollama {report.version}" if report.version else "the server"
    also = "" if report.status == "healthy" else f", but it is {report.status}"
    return f"{version} answers, and has {report.model}{also}"


def _calls(part: CallPart, evidence: Evidence, plan: Plan) -> Result:
    figures = evidence.calls.get(part)
    if figures is None or evidence.cut == part:
        return _void(part, evidence)
    answered = proofs.answered(figures, plan.min_success)
    if part == "concurrent" and answered.good:
        return Result(part, (answered, _overlap(figures)))
    return Result(part, (answered,))


def _overlap(figures: Figures) -> Sentence:
    if figures.peak > 1:
        return Sentence(good=True, text=f"up to {figures.peak} callers at the same time")
    return Sentence(good=False, text="no two callers were there at the same time")


def _drill(
    part: Part, evidence: Evidence, found: F | None, judged: Callable[[F], tuple[Sentence, ...]]
) -> Result:
    return _void(part, evidence) if found is None else Result(part, judged(found))


def _failover(evidence: Evidence, plan: Plan) -> Result:
    found, figures = evidence.failover, evidence.calls.get("failover")
    if found is None or figures is None or evidence.cut == "failover":
        return _void("failover", evidence)
    *others, last = found.acts
    shown = f"{', '.join(others)} and {last}" if others else last
    sentences = proofs.failover(found, figures, plan.min_success)
    return Result("failover", sentences, shown=f"{shown} endpoints")


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
