"""A drill's own world: simulated servers on this machine, and a client of them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..client import OllamaClient
from ..errors import OllamaBridgeError
from ..testing import FakeOllama
from .quiet import EVERYTHING, unlogged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..core.types import ChatReply
    from ..testing.faults import Exchange
    from .askers import Asker

MODEL = "reliability-drill"

# Only how long it waits differs from the settings: a drill shall be over soon, and it goes nowhere
# near a proxy. (A key and headers do not go along with another address anyhow.)
_OTHERWISE = {
    "model": MODEL,
    "proxy": None,
    "retry_initial_delay": 0.01,
    "retry_max_delay": 0.02,
    "retry_delay": 0.02,
    "cache": None,  # circuits that no process of the site sees
}
_UNLIMITED = {"max_concurrency": None, "max_waiting": None, "quota_limit": None}
_GLANCE = 0.01


@contextmanager
def rig(answer: str = "OK", **overrides: object) -> Iterator[tuple[FakeOllama, OllamaClient]]:
    """Give a simulated server, which says ``answer``, and a client of it.

    The client has the settings of the site, but for ``overrides``. It has circuits, pool and retry
    budget of its own, and logs nothing.

    Raises:
        OSError: this machine lets nobody listen on 127.0.0.1.
    """
    with (
        unlogged(*EVERYTHING),
        FakeOllama(models=[MODEL], answer=answer) as server,
        OllamaClient(base_url=server.url, **_OTHERWISE, **overrides) as client,
    ):
        yield server, client


@contextmanager
def rig_of_several(
    endpoints: Mapping[str, Mapping[str, object]], **overrides: object
) -> Iterator[tuple[dict[str, FakeOllama], OllamaClient]]:
    """Give a simulated server for each of these endpoints, and a client whose calls fail over.

    Servers forget requests once they are answered, so that a drill may last. The client is as that
    of ``rig``, but without limits for calls at once and of an account: it shall meet those that are
    simulated.

    Raises:
        OSError: this machine lets nobody listen on 127.0.0.1.
    """
    with unlogged(*EVERYTHING), ExitStack() as stack:
        servers = {
            name: stack.enter_context(FakeOllama(models=[MODEL], answer="OK", keep_requests=False))
            for name in endpoints
        }
        there = {name: {"BASE_URL": servers[name].url, **endpoints[name]} for name in endpoints}
        ours: dict[str, object] = {
            "base_url": next(iter(servers.values())).url,  # so that the site's are not taken too
            "endpoints": there,
            "routes": {"default": {"STRATEGY": "failover", "TARGETS": [*there]}},
        }
        client = OllamaClient(**{**ours, **_OTHERWISE, **_UNLIMITED, **overrides})
        yield servers, stack.enter_context(client)


def question(number: int) -> str:
    return f"Reliability drill, call {number}: reply with OK."


def ask(
    asker: Asker, client: OllamaClient, number: int, timeout: float | None = None
) -> ChatReply | OllamaBridgeError:
    """Make the call with this number, within ``timeout`` seconds, and return what became of it."""
    try:
        return asker.run(asker.ask(client, question(number), timeout=timeout)).reply
    except OllamaBridgeError as error:
        return error


class Held:
    """A fault: the answer is kept back until somebody lets it go."""

    def __init__(self) -> None:
        self._gone = threading.Event()

    def let_go(self) -> None:
        self._gone.set()

    async def reply(self, exchange: Exchange) -> None:
        while not self._gone.is_set():
            await exchange.sleep(_GLANCE)
        await exchange.send(exchange.honest())
