"""The endpoints of the failover drill: real servers on this machine, and what they have seen."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final

from .chaos import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..testing import FakeOllama
    from ..testing.faults import Exchange
    from .chaos import Death, Trouble, Troubles

SERVICE: Final = 0.05
"""Seconds that any reply takes; a bad one too, or all of those would overtake the good ones."""

COOLDOWN: Final = 0.5
"""Seconds for which an account is left alone when its allowance is used up."""


class Conduct:
    """What a server does with each question: a fault, as ``FakeOllama.misbehave`` takes it.

    Its server's thread alone writes it, and anybody may read it.

    Attributes:
        requests: questions that came.
        served: those that were answered well.
        met: what the others met.
        held: requests that came after the account's allowance was used up.
        probes: those of them that came when nobody could know better: the first one, and one after
            each cooldown.
    """

    def __init__(self, troubles: Troubles, clock: Callable[[], float] = monotonic) -> None:
        self._troubles = troubles
        self._clock = clock
        self._until = 0.0
        self.requests = 0
        self.served = 0
        self.met: Counter[Trouble] = Counter()
        self.held = 0
        self.probes = 0

    async def reply(self, exchange: Exchange) -> None:
        trouble = next(self._troubles)
        self.requests += 1
        if trouble is not None:
            self.met[trouble] += 1
        if trouble == "usage limit":
            self._note()
        await exchange.sleep(SERVICE)
        if trouble is not None:
            await FAULTS[trouble].reply(exchange)
            return
        self.served += 1
        await exchange.send(exchange.honest())

    def _note(self) -> None:
        now = self._clock()
        self.held += 1
        if now >= self._until:
            self.probes += 1
            self._until = now + COOLDOWN


class Mortal:
    """Kills a server, lets it come back, and takes note whether it is asked again.

    Attributes:
        deaths: how often it was killed.
        returns: after how many of them it answered again.
    """

    def __init__(self, server: FakeOllama, conduct: Conduct, deaths: Iterator[Death]) -> None:
        self._server = server
        self._conduct = conduct
        self._deaths = deaths
        self._next = next(deaths, None)
        self._is_dead = False
        self._served: int | None = None  # before it came back, until it has served again
        self.deaths = 0
        self.returns = 0

    def look(self, seconds: float) -> None:
        """Do what is due so many seconds after the beginning."""
        if self._served is not None and self._conduct.served > self._served:
            self._served = None
            self.returns += 1
        if self._next is None:
            return
        if not self._is_dead and seconds >= self._next.at:
            self._die()
        elif self._is_dead and seconds >= self._next.until:
            self._come_back()

    def _die(self) -> None:
        self._is_dead = True
        self._served = None
        self.deaths += 1
        self._server.refuse()

    def _come_back(self) -> None:
        self._is_dead = False
        self._served = self._conduct.served
        self._next = next(self._deaths, None)
        self._server.listen()
