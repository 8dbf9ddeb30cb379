"""The drill for the circuit breaker: a server is killed and comes back, and a client meets it.

It is a client of its own, with the thresholds of the settings and a short open time. The circuit
of the site is another one, and is not touched.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from time import sleep
from typing import TYPE_CHECKING, Any

from ..core.types import ChatReply
from ..errors import CircuitOpen, OllamaBridgeError
from .evidence import TRIES, Recovery
from .rig import Held, ask, question, rig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ..client import OllamaClient
    from ..conf import Settings
    from ..testing import FakeOllama
    from .askers import Answer, Asker

# Chance shortens it by up to half. What is left is long for three refusals, and short for a person.
OPEN_SECONDS = 2.0
STEPS = 5
PATIENCE = 5.0


def recovery(asker: Asker, settings: Settings, watch: Callable[[float], None]) -> Recovery:
    """Hold the drill; it ends at the first step that goes wrong."""
    found = Recovery(enabled=settings.CIRCUIT_BREAKER, threshold=settings.FAILURE_THRESHOLD)
    if not found.enabled:
        return found
    with rig(open_seconds=OPEN_SECONDS, recovery_timeout=OPEN_SECONDS) as (server, client):
        drill = _Drill(found, asker, server, client)
        steps = (drill.serve, drill.die, drill.come_back, drill.probe, drill.serve_again)
        for number, step in enumerate(steps, start=1):
            if not step():
                break
            watch(number)
    return found


class _Drill:
    """The steps, each of which notes what it finds and tells whether the next makes sense."""

    def __init__(
        self, found: Recovery, asker: Asker, server: FakeOllama, client: OllamaClient
    ) -> None:
        self._found = found
        self._asker = asker
        self._server = server
        self._client = client
        self._breaker = client.circuit_breaker
        self._number = 0

    def serve(self) -> bool:
        self._found.healthy = self._answered()
        return self._found.healthy == TRIES

    def die(self) -> bool:
        found = self._found
        self._server.refuse()
        while self._breaker.state == "closed" and found.failed < found.threshold:
            if isinstance(self._ask(), ChatReply):
                return False
            found.failed += 1
        found.opened = self._breaker.state == "open"
        return found.opened

    def come_back(self) -> bool:
        """The server is back before the open time is over, so it would see what leaks."""
        found = self._found
        self._server.listen()
        before = self._requests()
        found.refused = sum(isinstance(self._ask(), CircuitOpen) for _ in range(TRIES))
        found.leaked = self._requests() - before
        return found.refused == TRIES and not found.leaked

    def probe(self) -> bool:
        found = self._found
        found.waited = self._breaker.retry_after or 0.0
        sleep(found.waited)
        before = self._requests()
        with suppress(TimeoutError), self._probing():
            # Bounded, since a breaker that lets it through would keep it until the probe is over.
            found.held_back = isinstance(self._ask(timeout=PATIENCE), CircuitOpen)
            found.probes = self._requests() - before
        found.closed = self._breaker.state == "closed"
        return found.closed

    def serve_again(self) -> bool:
        self._found.again = self._answered()
        return self._found.again == TRIES

    @contextmanager
    def _probing(self) -> Iterator[None]:
        """Within the block a call is at the server; after it, that call has been answered.

        Raises:
            TimeoutError: the call does not reach the server.
        """
        held = Held()
        self._server.misbehave(held)
        [probe] = self._asker.start(self._probe)
        try:
            self._server.wait_for(lambda server: server.in_flight > 0, PATIENCE)
            yield
        finally:
            self._server.behave()
            held.let_go()
        with suppress(OllamaBridgeError):  # the circuit tells what became of it
            probe.result()

    def _answered(self) -> int:
        return sum(isinstance(self._ask(), ChatReply) for _ in range(TRIES))

    def _probe(self) -> Coroutine[Any, Any, Answer]:
        return self._asker.ask(self._client, question(self._next()))

    def _ask(self, timeout: float | None = None) -> ChatReply | OllamaBridgeError:
        return ask(self._asker, self._client, self._next(), timeout)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _requests(self) -> int:
        return len(self._server.chats)
