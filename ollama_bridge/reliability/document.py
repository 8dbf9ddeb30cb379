"""Evidence and verdict as plain JSON values. Times are in seconds, shares in percent."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..core.health import EndpointHealth, HealthReport
    from .evidence import Cuts, Evidence, Failover, Pooling, Recovery, Retrying
    from .plan import Plan
    from .tally import Figures, Times
    from .verdict import Result, Verdict

_DIGITS = 6


def document(evidence: Evidence, verdict: Verdict, plan: Plan | None) -> dict[str, Any]:
    """Return everything; None stands for what did not run, or is not known.

    ::

        passed, exit_code    the outcome
        proven               the claims that were proven
        results              of each part: part, state ("passed", "failed", "not run" or
                             "interrupted"), sentences
        plan                 requests, concurrency, duration, min_success, form ("chat", "stream",
                             "achat" or "astream": the method that asked), chaos, seed (None
                             without chaos)
        health               see ``of_health``; endpoints has the same of each endpoint
        sequential,          sent, answered, unfinished, success_rate, latency (average, min, max,
        concurrent           p95), first_token (the same up to the first piece of an answer; None
                             where no answer came in pieces), total, requests_per_second, retries,
                             hops, passed_by, answered_by (by endpoint), peak_in_flight, failures
                             (of each: code, count, sentences)
        pooling, retries,    what the drills counted, as ``evidence`` has it; cuts only where
        recovery, cuts       answers come in pieces
        failover             as sequential, and what its drill counted, as ``evidence`` has it
        error                why nothing could run: code, message
    """
    health = evidence.health
    return {
        "passed": verdict.passed,
        "exit_code": int(verdict.code),
        "proven": list(verdict.proven),
        "results": [_result(each) for each in verdict.results],
        "plan": plan and _plan(plan),
        "health": None if health is None else _health(health, evidence),
        "sequential": _figures(evidence.calls.get("sequential")),
        "concurrent": _figures(evidence.calls.get("concurrent")),
        "pooling": evidence.pooling and _counts(evidence.pooling),
        "retries": evidence.retries and _counts(evidence.retries),
        "recovery": evidence.recovery and _counts(evidence.recovery),
        "cuts": evidence.cuts and _counts(evidence.cuts),
        "failover": evidence.failover and _failover(evidence.failover, evidence),
        "error": None,
    }


def of_health(report: EndpointHealth, mode: str) -> dict[str, Any]:
    """Return a health report: what was asked, what it said, and the circuit with its mode.

    A model is None where the server did not say which it has.
    """
    return {
        "status": report.status,
        "endpoint": report.endpoint,
        "url": report.url,
        "reachable": report.reachable,
        "version": report.version or None,
        "model": report.model,
        "models": dict(report.models),
        "loaded": sorted(report.loaded),
        "circuit": {"state": str(report.circuit), "mode": mode},
        "latency": round(report.latency, _DIGITS),
        "retry_after": report.retry_after,
        "error": report.error and {"code": report.error.code, "message": str(report.error)},
    }


def _health(report: HealthReport, evidence: Evidence) -> dict[str, Any]:
    endpoints = [
        of_health(each, evidence.modes.get(name, evidence.mode))
        for name, each in report.endpoints.items()
    ]
    return {**of_health(report, evidence.mode), "endpoints": endpoints}


def _failover(found: Failover, evidence: Evidence) -> dict[str, Any]:
    facts = {each.name: getattr(found, each.name) for each in fields(found)}
    counts = {name: dict(it) for name, it in facts.items() if isinstance(it, Counter)}
    return {**(_figures(evidence.calls.get("failover")) or {}), **facts, **counts}


def _plan(plan: Plan) -> dict[str, Any]:
    return {**asdict(plan), "seed": plan.seed if plan.chaos else None}


def _result(result: Result) -> dict[str, Any]:
    return {
        "part": result.part,
        "state": result.state,
        "sentences": [each.text for each in result.sentences],
    }


def _counts(found: Pooling | Retrying | Recovery | Cuts) -> dict[str, Any]:
    counts = asdict(found)
    return {
        name: _rounded(each) if isinstance(each, float) else each for name, each in counts.items()
    }


def _figures(figures: Figures | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    return {
        "sent": figures.sent,
        "answered": figures.answered,
        "unfinished": figures.unfinished,
        "success_rate": _rounded(figures.success_rate),
        "latency": _times(figures.latency),
        "first_token": figures.first_token and _times(figures.first_token),
        "total": _rounded(figures.total),
        "requests_per_second": _rounded(figures.rate),
        "retries": figures.retries,
        "hops": figures.hops,
        "passed_by": figures.passed_by,
        "answered_by": dict(figures.answered_by),
        "peak_in_flight": figures.peak,
        "failures": [
            {"code": each.code, "count": each.count, "sentences": list(each.sentences)}
            for each in figures.failures
        ],
    }


def _times(times: Times) -> dict[str, float | None]:
    return {
        "average": _rounded(times.average),
        "min": _rounded(times.shortest),
        "max": _rounded(times.longest),
        "p95": _rounded(times.p95),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)
