"""The drill for failover: a crowd calls by a route over three endpoints that misbehave.

Each kind of chaos has a world of its own: new servers, and a new client, whose circuits are closed.
The client of the site is another one, and is not touched.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

from ..core.events import CircuitOpened, CooldownBegan, CooldownEnded, CooldownProbed
from .chaos import NAMES, deaths, timeouts, troubles
from .conduct import COOLDOWN, Conduct, Mortal
from .crowd import Crowd
from .quiet import EVERYTHING, unlogged
from .rig import question, rig_of_several

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from ..circuits import Governed
    from ..client import Governing, OllamaClient
    from ..core.events import Event
    from ..testing import FakeOllama
    from .askers import Answer, Asker
    from .evidence import Failover
    from .plan import Act, Plan
    from .tally import Tally

MOST_CALLERS = 20
"""More would only measure how servers and callers share one interpreter."""

# An endpoint shall be tried again, and come back, within the few seconds of a drill.
_WAITS: Final[Mapping[str, object]] = {
    "open_seconds": 0.3,
    "recovery_timeout": 0.6,
    "cooldown_seconds": COOLDOWN,
    "first_token_timeout": None,  # the TIMEOUT of each endpoint
}
_RARE = (CircuitOpened, CooldownBegan, CooldownProbed, CooldownEnded)
_QUESTION = question(1)  # the same for all: servers remember how often each was asked
_GLANCE = 0.02
_PATIENCE = 2.0


def failover(
    asker: Asker, plan: Plan, found: Failover, tally: Tally, watch: Callable[[Act], object]
) -> None:
    """Hold the drill. What it finds is in ``found`` and ``tally``, also after an interrupt.

    ``watch`` is called now and then, with the kind of chaos that there is.

    Raises:
        OSError: this machine lets nobody listen on 127.0.0.1.
    """
    seconds = plan.chaos_seconds / len(plan.acts)
    for act in plan.acts:
        stage = _Stage(act, asker, found)
        with stage.set_up() as ask:

            def look(stage: _Stage = stage) -> None:
                stage.look()
                watch(stage.act)

            Crowd(asker, ask, tally, callers=found.callers, seconds=seconds).run(look)


class _Stage:
    """One kind of chaos: three servers and how they behave, and who calls them."""

    def __init__(self, act: Act, asker: Asker, found: Failover) -> None:
        self.act = act
        self._asker = asker
        self._found = found
        self._conducts = {name: Conduct(each) for name, each in troubles(act, found.seed).items()}
        self._listener = _Listener()
        self._under_way: set[object] = set()

    @contextmanager
    def set_up(self) -> Iterator[Callable[[int], Awaitable[Answer]]]:
        """Give what calls the endpoints; after the block, all that was seen is in ``found``."""
        endpoints = {name: {"TIMEOUT": seconds} for name, seconds in timeouts(self.act).items()}
        with ExitStack() as stack:
            stack.enter_context(unlogged(*EVERYTHING))
            stack.callback(self._wait)  # when servers are gone, and still nothing is logged
            servers, client = stack.enter_context(rig_of_several(endpoints, **_WAITS))
            self._begin(servers, client)
            try:
                yield partial(self._ask, client)
            finally:
                self._end()

    def look(self) -> None:
        self._mortal.look(monotonic() - self._since)
        self._listener.count()

    def _begin(self, servers: Mapping[str, FakeOllama], client: OllamaClient) -> None:
        client.governed_by(self._listener.govern)
        for name, server in servers.items():
            server.misbehave(self._conducts[name])
        first = NAMES[0]
        mortality = deaths(self.act, self._found.seed)
        self._mortal = Mortal(servers[first], self._conducts[first], mortality)
        self._found.acts.append(self.act)
        self._since = monotonic()

    async def _ask(self, client: OllamaClient, _number: int) -> Answer:
        call = object()
        self._under_way.add(call)
        try:
            return await self._asker.ask(client, _QUESTION)
        finally:
            self._under_way.discard(call)

    def _end(self) -> None:
        found = self._found
        for name, conduct in self._conducts.items():
            found.requests[name] += conduct.requests
            found.troubles.update(conduct.met)
            found.held += conduct.held
            found.probes += conduct.probes
        found.deaths += self._mortal.deaths
        found.returns += self._mortal.returns
        self._listener.count()
        found.openings.update(self._listener.openings)
        found.cooldowns.update(self._listener.cooldowns)

    def _wait(self) -> None:
        """Wait for calls that an interrupt has left under way, but not for long."""
        until = monotonic() + _PATIENCE
        while self._under_way and monotonic() < until:
            sleep(_GLANCE)


class _Listener:
    """Hears of circuits that open and of cooldowns that begin, and governs nothing."""

    def __init__(self) -> None:
        self._heard: deque[Event] = deque()
        self._cooling: set[str] = set()
        self.openings: Counter[str] = Counter()
        self.cooldowns: Counter[str] = Counter()

    def govern(self, governed: Governed, _before: Governing | None) -> Governing:
        governed.listen(self._note)
        return self

    def look(self, changed: str = "") -> None:
        """There is no operator."""

    def end(self) -> None:
        """There is nothing to end."""

    def count(self) -> None:
        """Count what was heard since."""
        while self._heard:
            match self._heard.popleft():
                case CircuitOpened(circuit=name):
                    self.openings[name.partition("/")[0]] += 1
                case CooldownBegan(endpoint=name) if name not in self._cooling:
                    self._cooling.add(name)  # every 429 that was under way begins it anew
                    self.cooldowns[name] += 1
                case CooldownProbed(endpoint=name) | CooldownEnded(endpoint=name):
                    self._cooling.discard(name)

    def _note(self, event: Event) -> None:
        """Take note, in whatever thread it happens, and of nothing that is as frequent as calls."""
        if isinstance(event, _RARE):
            self._heard.append(event)
