"""Whether an endpoint can serve, asked without moving any circuit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..errors import (
    CircuitOpen,
    ConnectionFailed,
    ModelNotFound,
    OllamaBridgeError,
    RateLimited,
    Timeout,
)
from .actions import FaultKind, Send, TransportFault
from .breaker import Mode, State
from .diagnosis import OK, from_body, from_fault, from_status
from .places import refusal_sentence
from .protocol import (
    PS,
    TAGS,
    VERSION,
    canonical,
    decode_object,
    is_remote,
    model_names,
    version_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .actions import Flow
    from .deadline import Clock
    from .routing import CircuitFacts, Router
    from .types import Endpoint, Request, Response, Target

Status = Literal["healthy", "degraded", "unhealthy"]

# A server that needs longer than this for its list of models does not serve visitors well.
LONGEST_PROBE = 5.0
_LONGEST_EXTRA = 1.0

_UNREACHED = (ConnectionFailed, Timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """Whether the default target can serve. Truthy unless ``status`` is "unhealthy".

    Attributes:
        status: "degraded" means that the default target serves, but something else does not.
        reachable: whether the server answered at all.
        version: the server's version, "" if unknown.
        models: the models that the settings name, and whether the server has each.
        loaded: canonical names of the models in the server's memory.
        circuit: state of the default target's circuit.
        latency: seconds that the probe took.
        error: what stands in the way, or None.
        retry_after: seconds until a call makes sense, None where not known.
    """

    status: Status
    endpoint: str
    url: str
    model: str
    reachable: bool
    circuit: State
    latency: float
    version: str = ""
    models: Mapping[str, bool] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    error: OllamaBridgeError | None = None
    retry_after: float | None = None

    def __bool__(self) -> bool:
        return self.status != "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a server said of itself."""

    version: str = ""
    installed: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()


def check(router: Router) -> Flow[HealthReport]:
    """Ask the default endpoint for its version and models. Moves no circuit and looks at none."""
    target = router.default
    started = router.clock.monotonic()
    error: OllamaBridgeError | None = None
    seen = _Seen()
    try:
        seen = yield from _look(router, target)
    except OllamaBridgeError as exc:
        error = exc.with_traceback(None)
    present = canonical(target.model) in seen.installed or is_remote(target.model)
    if error is None and not present:
        error = _missing(target)
    return HealthReport(
        status="unhealthy" if error else "healthy",
        endpoint=target.endpoint.name,
        url=target.endpoint.base_url,
        model=target.model,
        reachable=not isinstance(error, _UNREACHED),
        circuit=State.CLOSED,
        latency=router.clock.monotonic() - started,
        version=seen.version,
        models={target.model: present},
        loaded=seen.loaded,
        error=error,
    )


def is_there(endpoint: Endpoint, clock: Clock) -> Flow[bool]:
    """Tell whether an Ollama server answers at the endpoint within its timeout."""
    try:
        response = yield Send(endpoint, VERSION, clock.monotonic() + endpoint.timeout)
    except TransportFault:
        return False
    reply = decode_object(response.body) if response.status == OK else None
    return reply is not None and version_of(reply) != ""


def judged(report: HealthReport, router: Router) -> HealthReport:
    """Return a report with the circuits as they are now; what the server said stays.

    An open circuit whose time has passed is only "degraded": the next call probes it. If that were
    unhealthy, a load balancer that heeds this would keep away the very call that could close it.
    """
    facts = router.worse(router.default)
    cooldown = router.cooldown(router.default.endpoint)
    report = replace(report, circuit=facts.state, retry_after=cooldown or facts.retry_after)
    if report.error is not None:
        return report
    if cooldown:
        return replace(report, status="unhealthy", error=_pause(report, cooldown))
    if _refuses(facts):
        return replace(report, status="unhealthy", error=_refusal(report, facts))
    states = (router.facts(name).state for name in router.named())
    if any(state is not State.CLOSED for state in states):
        return replace(report, status="degraded")
    return report


def _refuses(circuit: CircuitFacts) -> bool:
    if circuit.mode is Mode.FORCED_OPEN:
        return True
    return circuit.state is State.OPEN and bool(circuit.retry_after)


def _pause(report: HealthReport, seconds: float) -> RateLimited:
    return RateLimited(
        f"The server at {report.url} asked for a pause. Next try in {math.ceil(seconds)} s",
        endpoint=report.endpoint,
        model=report.model,
        retry_after=seconds,
    )


def _refusal(report: HealthReport, circuit: CircuitFacts) -> CircuitOpen:
    return CircuitOpen(
        refusal_sentence(circuit.retry_after),
        endpoint=report.endpoint,
        model=report.model,
        retry_after=circuit.retry_after,
    )


def _look(router: Router, target: Target) -> Flow[_Seen]:
    until = router.clock.monotonic() + min(LONGEST_PROBE, target.endpoint.timeout)
    tags = yield from _get(router, target, TAGS, until)
    version = yield from _optional(router, target, VERSION, until)
    running = yield from _optional(router, target, PS, until)
    return _Seen(
        version=version_of(version),
        installed=model_names(tags),
        loaded=model_names(running),
    )


def _optional(
    router: Router, target: Target, request: Request, until: float
) -> Flow[dict[str, Any]]:
    """Ask briefly for what old servers and the cloud may lack; it decides nothing."""
    until = min(until, router.clock.monotonic() + _LONGEST_EXTRA)
    try:
        return (yield from _get(router, target, request, until))
    except OllamaBridgeError:
        return {}


def _get(router: Router, target: Target, request: Request, until: float) -> Flow[dict[str, Any]]:
    try:
        response = yield from _send(target.endpoint, request, until)
    except TransportFault as fault:
        raise from_fault(fault, target, phase="total") from fault
    if response.status != OK:
        raise from_status(response, response.body, target, wall=router.clock.wall())
    reply = decode_object(response.body)
    if reply is None:
        raise from_body(response, target)
    return reply


def _send(endpoint: Endpoint, request: Request, until: float) -> Flow[Response]:
    """Send, and again on a fresh connection where a kept one was dropped, as a call would."""
    response: Response
    try:
        response = yield Send(endpoint, request, until)
    except TransportFault as fault:
        if fault.kind is not FaultKind.DROPPED:
            raise
        response = yield Send(endpoint, request, until, fresh=True)
    return response


def _missing(target: Target) -> ModelNotFound:
    return ModelNotFound(
        f"Model {target.model} not found. Run: ollama pull {target.model}",
        endpoint=target.endpoint.name,
        model=target.model,
    )
