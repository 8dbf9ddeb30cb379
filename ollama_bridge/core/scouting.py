"""What servers are asked about themselves, off the path of calls, and how often.

::

    a route of several targets -> /api/tags, /api/ps of each of its endpoints, but of the cloud
    the cloud, with a key      -> /api/balance

They are asked while calls are made, and never sooner than ``Intervals`` says; until then, and while
they do not answer, what is known serves. What fails here moves no circuit. ``/api/ps`` is asked
where somebody looks at what is loaded: a route whose strategy does, or whose affinity is set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from ..errors import InvalidReply, OllamaBridgeError, Timeout
from .actions import FaultKind, Send, TransportFault
from .diagnosis import FORBIDDEN, OK, TOO_MANY, UNAUTHORIZED, from_fault, from_status
from .protocol import PS, TAGS, decode_object, model_names
from .quota import from_balance, moment_of
from .retry import parse_retry_after
from .strategies import STRATEGIES, least_busy, lowest_cost
from .types import Request, Target

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .actions import Flow
    from .router import Router
    from .routing import Route
    from .types import Endpoint, Response

BALANCE: Final = Request("GET", "/api/balance")
LONGEST: Final = 2.0
"""Seconds that a server may take to answer."""
LARGEST: Final = 2 * 1024 * 1024
"""Bytes of its answer: a list of some thousand models."""

_BLIND: Final = frozenset(STRATEGIES.values()) - {least_busy, lowest_cost}
_SERVER_ERRORS: Final = 500


class Intervals(NamedTuple):
    """After how many seconds a server is asked again, at least.

    Attributes:
        installed: for its list of models.
        loaded: for those in its memory.
        balance: for what is left of an allowance: the cloud bears 10 questions a minute from all
            processes together.
        rest: after failures; it begins with 1 and doubles up to this.
        crowded: where it asked for fewer questions.
        hopeless: where it does not tell, or not with this key.
    """

    installed: float = 30.0
    loaded: float = 3.0
    balance: float = 60.0
    rest: float = 30.0
    crowded: float = 600.0
    hopeless: float = 3600.0


class Errand(ABC):
    """One question to one server; ``due_at`` is when it may be asked again."""

    request: ClassVar[Request]

    def __init__(self, endpoint: Endpoint, intervals: Intervals) -> None:
        self.endpoint = replace(
            endpoint,
            connect_timeout=min(endpoint.connect_timeout, LONGEST),
            max_response_bytes=LARGEST,
            pool_maxsize=0,  # what is asked so seldom keeps no connection
        )
        self.intervals = intervals
        self.failures = 0
        self.due_at = 0.0

    def go(self, router: Router) -> Flow[None]:
        """Ask, and let the router learn what the server says."""
        now = router.clock.monotonic()
        self.due_at = now + self.every
        try:
            said: Response | None = yield Send(self.endpoint, self.request, now + LONGEST)
        except TransportFault:
            said = None
        if said is not None and self.learn(router, said):
            self.failures = 0
            return
        self.failures += 1
        self.due_at = now + max(self.every, self.rest(said, router.clock.wall()))

    @property
    @abstractmethod
    def every(self) -> float:
        """Seconds between two questions, at least."""

    @abstractmethod
    def learn(self, router: Router, said: Response) -> bool:
        """Let the router learn; tell whether the answer made sense."""

    def rest(self, said: Response | None, wall: float) -> float:  # noqa: ARG002
        """Return the seconds to wait after a failure; None is that of the network."""
        return min(self.intervals.rest, 2.0 ** min(self.failures - 1, 10))


class Installed(Errand):
    """Which models a server has."""

    request = TAGS

    @property
    def every(self) -> float:
        return self.intervals.installed

    def learn(self, router: Router, said: Response) -> bool:
        reply = _list_of(said)
        if reply is None:
            return False
        router.learn_models(self.endpoint.name, model_names(reply), None)
        return True


class Loaded(Errand):
    """Which models are in a server's memory."""

    request = PS

    @property
    def every(self) -> float:
        return self.intervals.loaded

    def learn(self, router: Router, said: Response) -> bool:
        reply = _list_of(said)
        if reply is None:
            return False
        there = moment_of(said.headers.get("Date"))  # by the clock that its times are of
        wall = router.clock.wall() if there is None else there
        router.learn_models(self.endpoint.name, None, loaded_at(wall, reply))
        return True


class Balance(Errand):
    """What is left of an account's allowance."""

    request = BALANCE

    @property
    def every(self) -> float:
        return self.intervals.balance

    def learn(self, router: Router, said: Response) -> bool:
        if said.status == UNAUTHORIZED:
            target = Target(self.endpoint, self.endpoint.model)
            router.heed(target, from_status(said, said.body, target, wall=router.clock.wall()))
        reply = _object_of(said)
        quota = None if reply is None else from_balance(reply)
        if quota is None:
            return False
        router.learn_quota(self.endpoint.name, quota)
        return True

    def rest(self, said: Response | None, wall: float) -> float:
        if said is None or said.status >= _SERVER_ERRORS:
            return super().rest(said, wall)
        if said.status == TOO_MANY:
            asked_for = parse_retry_after(said.headers.get("Retry-After"), wall=wall)
            return max(self.intervals.crowded, asked_for or 0.0)
        return self.intervals.hopeless


class Scouting:
    """The errands of each route. Not thread-safe: one thread runs them."""

    def __init__(self, router: Router, intervals: Intervals | None = None) -> None:
        self._router = router
        made = _Errands(intervals or Intervals())
        routes = router.plan.routes.values()
        found = {route.name: made.of(route) for route in routes}
        self._errands = {name: errands for name, errands in found.items() if errands}
        self._route_of = {
            errand.endpoint.name: name
            for name, errands in self._errands.items()
            for errand in errands
            if isinstance(errand, Balance)
        }
        self.accounts = [errand for errand in made.all if isinstance(errand, Balance)]

    @property
    def routes(self) -> Sequence[str]:
        """The names of the routes that have any errands."""
        return [*self._errands]

    def route_to(self, account: str) -> str | None:
        """Return a route with the errand to this endpoint's account, None where there is none."""
        return self._route_of.get(account)

    def due_at(self, route: str) -> float:
        return min(errand.due_at for errand in self._errands[route])

    def go(self, route: str) -> Flow[None]:
        """Run what is due for a route; who did not answer before comes last."""
        now = self._router.clock.monotonic()
        due = [errand for errand in self._errands[route] if errand.due_at <= now]
        for errand in sorted(due, key=lambda errand: errand.failures):
            yield from errand.go(self._router)

    def ask_accounts(self, only: str | None = None) -> Flow[dict[str, OllamaBridgeError | None]]:
        """Ask all accounts now; return by endpoint why one does not tell, None where it does.

        ``only`` names an endpoint. It leaves ``due_at`` as it is, and so may run beside all else.
        """
        told: dict[str, OllamaBridgeError | None] = {}
        for errand in self.accounts:
            if only in {None, errand.endpoint.name}:
                told[errand.endpoint.name] = yield from _asked_now(self._router, errand)
        return told


class _Errands:
    """Makes errands, one for each question and endpoint, whatever routes they are for."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        self._made: dict[tuple[type[Errand], str], Errand] = {}

    @property
    def all(self) -> Sequence[Errand]:
        return [*self._made.values()]

    def of(self, route: Route) -> Sequence[Errand]:
        found: list[Errand] = []
        for endpoint in dict.fromkeys(target.endpoint for target in route.targets):
            if endpoint.is_cloud:
                found += [self._one(Balance, endpoint)] if endpoint.api_key else []
            elif len(route.targets) > 1:
                found.append(self._one(Installed, endpoint))
                found += [self._one(Loaded, endpoint)] if _looks(route) else []
        return found

    def _one(self, kind: type[Errand], endpoint: Endpoint) -> Errand:
        key = kind, endpoint.name
        if key not in self._made:
            self._made[key] = kind(endpoint, self._intervals)
        return self._made[key]


def loaded_at(wall: float, reply: Mapping[str, Any]) -> frozenset[str]:
    """Return the canonical names in a reply of ``/api/ps`` whose time is not over."""
    rows = [row for row in reply["models"] or () if isinstance(row, dict)]
    kept = [row for row in rows if (moment_of(row.get("expires_at")) or wall) >= wall]
    return model_names({"models": kept})


def _looks(route: Route) -> bool:
    """Tell whether anybody looks at which models are loaded, to choose among targets."""
    return bool(route.affinity) or (route.affinity is None and route.strategy not in _BLIND)


def _object_of(said: Response) -> dict[str, Any] | None:
    return decode_object(said.body) if said.status == OK else None


def _list_of(said: Response) -> dict[str, Any] | None:
    """Return a reply that lists models; Go may write an empty list as null."""
    reply = _object_of(said)
    is_list = reply is not None and isinstance(reply.get("models", 0), list | None)
    return reply if is_list else None


def _asked_now(router: Router, errand: Balance) -> Flow[OllamaBridgeError | None]:
    endpoint = errand.endpoint
    target = Target(endpoint, endpoint.model)
    try:
        said: Response = yield Send(endpoint, BALANCE, router.clock.monotonic() + LONGEST)
    except TransportFault as fault:
        if fault.kind in {FaultKind.SILENT, FaultKind.SLOW}:
            return Timeout(
                f"{endpoint.base_url} did not tell within {LONGEST:g} s what is left of the "
                "allowance. Try again later",
                endpoint=endpoint.name,
            )
        return from_fault(fault, target, phase="total")
    if errand.learn(router, said):
        return None
    if said.status in {UNAUTHORIZED, FORBIDDEN, TOO_MANY} or said.status >= _SERVER_ERRORS:
        return from_status(said, said.body, target, wall=router.clock.wall())
    return InvalidReply(
        f"{endpoint.base_url} does not tell what is left of the allowance (HTTP {said.status})",
        endpoint=endpoint.name,
        status=said.status,
    )
