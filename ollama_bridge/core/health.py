"""Whether the endpoints can serve, asked without moving any circuit."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ..errors import CircuitOpen, ConnectionFailed, OllamaBridgeError, Timeout
from .actions import FaultKind, Send, TransportFault
from .breaker import Mode, State
from .diagnosis import OK, from_body, from_fault, from_status, missing, unauthorized
from .failed import merged
from .names import canonical, is_remote
from .places import refusal_sentence
from .protocol import PS, TAGS, VERSION, decode_object, model_names, version_of
from .types import Target

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .actions import Flow
    from .deadline import Clock
    from .router import CircuitFacts, Router
    from .types import Endpoint, Request, Response

Status = Literal["healthy", "degraded", "unhealthy"]

# A server that needs longer than this for its list of models does not serve visitors well.
LONGEST_PROBE = 5.0
_SHORTEST_PROBE = 1.0
_LONGEST_EXTRA = 1.0

_UNREACHED = (ConnectionFailed, Timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointHealth:
    """Whether an endpoint can serve. Truthy unless ``status`` is "unhealthy".

    Attributes:
        status: "degraded" means that it can serve, but not all of its models.
        reachable: whether the server answered at all.
        version: the server's version, "" if unknown.
        models: the models that the settings name there, and whether the server has each; None
            where it did not say.
        loaded: canonical names of the models in the server's memory.
        circuit: state of the circuits of its first model.
        latency: seconds that the probe took.
        error: what stands in the way, or None.
        retry_after: seconds until a call makes sense, None where not known.
        is_cloud: whether it is Ollama's cloud, where nobody pulls models.
    """

    status: Status
    endpoint: str
    url: str
    model: str
    reachable: bool
    circuit: State
    latency: float
    version: str = ""
    models: Mapping[str, bool | None] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    error: OllamaBridgeError | None = None
    retry_after: float | None = None
    is_cloud: bool = False

    def __bool__(self) -> bool:
        return self.status != "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport(EndpointHealth):
    """Whether calls that ask for nothing else can be served. Truthy unless "unhealthy".

    The facts are those of the default target, the first that such a call tries.

    Attributes:
        status: "degraded" means that they can, but that something else cannot.
        reachable: whether any server that they may go to answered.
        error: what stands in the way of them, or None.
        endpoints: the health of each endpoint of the settings, by name.
    """

    endpoints: Mapping[str, EndpointHealth] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a server said of itself, or why it did not; in ``latency`` seconds."""

    version: str = ""
    installed: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    error: OllamaBridgeError | None = None
    latency: float = 0.0

    @property
    def is_reached(self) -> bool:
        return not isinstance(self.error, _UNREACHED)

    def has(self, model: str) -> bool:
        return canonical(model) in self.installed or is_remote(model)

    def lists(self, model: str) -> bool | None:
        """Do as ``has``; None where the server did not say which models it has."""
        return self.has(model) if self.error is None else None


def longest(router: Router) -> float:
    """Return the most seconds that ``check`` takes."""
    count = len(router.plan.endpoints)
    return count * max(_SHORTEST_PROBE, LONGEST_PROBE / count)


def check(router: Router) -> Flow[Mapping[str, Seen]]:
    """Ask each endpoint for its version and models. Moves no circuit and looks at none."""
    seconds = longest(router) / len(router.plan.endpoints)
    seen: dict[str, Seen] = {}
    for endpoint in router.plan.endpoints:
        seen[endpoint.name] = yield from _asked(router, endpoint, seconds)
    return seen


def is_there(endpoint: Endpoint, clock: Clock) -> Flow[bool]:
    """Tell whether an Ollama server answers at the endpoint within its timeout."""
    try:
        response = yield Send(endpoint, VERSION, clock.monotonic() + endpoint.timeout)
    except TransportFault:
        return False
    reply = decode_object(response.body) if response.status == OK else None
    return reply is not None and version_of(reply) != ""


def judged(seen: Mapping[str, Seen], router: Router) -> HealthReport:
    """Return the report, with the circuits as they are now; what the servers said stays.

    An open circuit whose time has passed only degrades: the next call probes it. If that were
    unhealthy, a load balancer that heeds this would keep away the very call that could close it.
    """
    endpoints = {
        endpoint.name: _of_endpoint(router, endpoint, seen[endpoint.name])
        for endpoint in router.plan.endpoints
    }
    targets = router.plan.default.targets
    errors = [_obstacle(router, target, seen[target.endpoint.name]) for target in targets]
    standing = [error for error in errors if error is not None]
    first = endpoints[targets[0].endpoint.name]
    facts = router.worse(targets[0])
    error = merged([copy(each) for each in standing]) if len(standing) == len(targets) else None
    is_well = not standing and all(each.status == "healthy" for each in endpoints.values())
    return HealthReport(
        status="unhealthy" if error else "healthy" if is_well else "degraded",
        endpoint=first.endpoint,
        url=first.url,
        model=targets[0].model,
        reachable=any(endpoints[target.endpoint.name].reachable for target in targets),
        circuit=facts.state,
        latency=sum(each.latency for each in seen.values()),
        version=first.version,
        models=first.models,
        loaded=first.loaded,
        error=error,
        retry_after=error.retry_after if error else first.retry_after,
        is_cloud=first.is_cloud,
        endpoints=endpoints,
    )


def _of_endpoint(router: Router, endpoint: Endpoint, seen: Seen) -> EndpointHealth:
    targets = router.plan.named_at(endpoint)
    errors = [_obstacle(router, target, seen) for target in targets]
    standing = [error for error in errors if error is not None]
    facts = router.worse(targets[0])
    is_well = not standing and _all_closed(router, endpoint)
    able: Status = "healthy" if is_well else "degraded"
    error = standing[0] if len(standing) == len(targets) else None
    return EndpointHealth(
        status="unhealthy" if error else able,
        endpoint=endpoint.name,
        url=endpoint.base_url,
        model=targets[0].model,
        reachable=seen.is_reached,
        circuit=facts.state,
        latency=seen.latency,
        version=seen.version,
        models={target.model: seen.lists(target.model) for target in targets},
        loaded=seen.loaded,
        error=error,
        retry_after=router.cooldown(endpoint) or facts.retry_after,
        is_cloud=endpoint.is_cloud,
    )


def _obstacle(router: Router, target: Target, seen: Seen) -> OllamaBridgeError | None:
    """Return what stands in the way of a call to a target, None where nothing does."""
    if seen.error is not None:
        return seen.error
    if not seen.has(target.model):
        return missing(target)
    place = router.place(target.endpoint)
    if pause := router.cooldown(target.endpoint):
        return place.refusal(target, pause)
    if place.refused_until > router.clock.monotonic():  # the cloud tells its models to anybody
        return unauthorized(target)
    facts = router.worse(target)
    return _refusal(target, facts) if _refuses(facts) else None


def _all_closed(router: Router, endpoint: Endpoint) -> bool:
    names = (name for name, target in router.named().items() if target.endpoint is endpoint)
    return all(router.facts(name).state is State.CLOSED for name in names)


def _refuses(circuit: CircuitFacts) -> bool:
    if circuit.mode is Mode.FORCED_OPEN:
        return True
    return circuit.state is State.OPEN and bool(circuit.retry_after)


def _refusal(target: Target, circuit: CircuitFacts) -> CircuitOpen:
    return CircuitOpen(
        refusal_sentence(circuit.retry_after),
        endpoint=target.endpoint.name,
        model=target.model,
        retry_after=circuit.retry_after,
    )


def _asked(router: Router, endpoint: Endpoint, seconds: float) -> Flow[Seen]:
    started = router.clock.monotonic()
    target = Target(endpoint, endpoint.name_of(endpoint.model))
    try:
        seen = yield from _look(router, target, started + min(seconds, endpoint.timeout))
    except OllamaBridgeError as error:
        seen = Seen(error=error.with_traceback(None))
    return replace(seen, latency=router.clock.monotonic() - started)


def _look(router: Router, target: Target, until: float) -> Flow[Seen]:
    tags = yield from _get(router, target, TAGS, until)
    version = yield from _optional(router, target, VERSION, until)
    running = yield from _optional(router, target, PS, until)
    return Seen(
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
