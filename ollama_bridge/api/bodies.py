"""The bodies of answers and of health reports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import OllamaBridgeError
from .errors import Problem, of_bridge, wait_for

if TYPE_CHECKING:
    from ..core.health import EndpointHealth, HealthReport
    from ..core.types import ChatReply


def of_answer(reply: ChatReply, request_id: str) -> dict[str, Any]:
    body = {
        "success": True,
        "response": str(reply),
        "source": reply.source,
        "reliability": reply.reliability,
        "model": reply.model,
        "usage": reply.usage.to_dict(),
        "done_reason": reply.done_reason,
        "request_id": request_id,
    }
    return body | {"truncated": True} if reply.truncated else body


def standstill(report: HealthReport) -> Problem:
    """Return what stands in the way; here it is always a 503, whatever a chat would answer."""
    error = report.error or OllamaBridgeError()
    problem = of_bridge(error)
    seconds = report.retry_after if error.retry_after is None else error.retry_after
    return replace(problem, status=503, retry_after=wait_for(503, seconds))


def of_health(report: HealthReport, problem: Problem | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "success": problem is None,
        "status": report.status,
        "ollama_connected": report.reachable,
        "default_model": report.model,
        "circuit_breaker_state": str(report.circuit),
    }
    if problem is not None:
        body |= {
            "error": problem.error,
            "code": problem.code,
            "retry_after": problem.retry_after,
        }
    return body


def of_endpoint(report: EndpointHealth) -> dict[str, Any]:
    """Return what only the operator should know."""
    return {
        "status": report.status,
        "url": report.url,
        "model": report.model,
        "reachable": report.reachable,
        "version": report.version,
        "models": dict(report.models),
        "loaded": sorted(report.loaded),
        "circuit_breaker_state": str(report.circuit),
        "latency_ms": round(report.latency * 1000, 1),
        "error": str(report.error) if report.error else None,
        "retry_after": report.retry_after,
    }
