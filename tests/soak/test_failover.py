"""Two endpoints under steady load, one of which is killed and comes back, again and again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ollama_bridge import OllamaBridgeError, OllamaClient, StreamInterrupted
from ollama_bridge.testing import FakeOllama, faults
from tests.net.crowd import echo

pytestmark = pytest.mark.soak

RATE = 50  # calls a second
WARM_UP = 1  # seconds
CALM = 10
ROUGH = 60
KILLED_EVERY = 5.0
DEAD_FOR = 2.5
BEGUN = "broken after it had begun"
STRATEGIES = ("failover", "least_busy", "round_robin")
CONNECT_TIMEOUT = 0.5
SETTINGS: dict[str, Any] = {
    "cache": None,
    "connect_timeout": CONNECT_TIMEOUT,
    # Closed again before the next kill, so that each of them meets calls.
    "open_seconds": 0.5,
    "recovery_timeout": 1,
}


@dataclass
class Told:
    """How a call ended; ``seconds`` are up to its answer, or the first piece of it."""

    how: str
    seconds: float
    strategy: str
    endpoint: str = ""
    hops: int = 0


@dataclass
class Tally:
    """How many calls ended."""

    calls: list[Told]

    def of(self, how: str) -> list[Told]:
        return [told for told in self.calls if told.how == how]

    @property
    def hopped(self) -> list[Told]:
        return [told for told in self.of("answered") if told.hops]

    @property
    def ends(self) -> Counter[str]:
        return Counter(told.how for told in self.calls)

    @property
    def p99(self) -> float:
        seconds = sorted(told.seconds for told in self.of("answered"))
        return seconds[int(len(seconds) * 0.99)]

    def __str__(self) -> str:
        """Return one line of figures."""
        answered = self.of("answered")
        slowest = max(told.seconds for told in answered)
        of_first = sum(told.endpoint == "a" for told in answered) / len(answered)
        return (
            f"{dict(self.ends)}, p99 {self.p99 * 1e3:.0f} ms, slowest {slowest * 1e3:.0f} ms, "
            f"{len(self.hopped)} failed over, {of_first:.0%} answered by the first"
        )


@pytest.fixture
def servers() -> Iterator[list[FakeOllama]]:
    """Two servers that take a twentieth of a second to begin, and a tenth to answer."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(FakeOllama(answer=echo, tokens_per_second=100, keep_requests=False))
            for _ in range(2)
        ]
        for server in servers:
            server.misbehave(faults.Stall(0.05))
        yield servers


@pytest.fixture
def client(servers: list[FakeOllama]) -> Iterator[OllamaClient]:
    endpoints = {name: {"BASE_URL": server.url} for name, server in zip("ab", servers, strict=True)}
    routes = {name: {"STRATEGY": name, "TARGETS": ["a", "b"]} for name in STRATEGIES}
    first = {"default": {"TARGETS": ["a", "b"]}}
    with OllamaClient(endpoints=endpoints, routes={**first, **routes}, **SETTINGS) as client:
        yield client


@contextmanager
def dying(server: FakeOllama) -> Iterator[list[float]]:
    """Kill the server every few seconds, and let it come back; give the moments of its deaths."""
    ended = threading.Event()
    deaths: list[float] = []

    def work() -> None:
        while not ended.wait(KILLED_EVERY - DEAD_FOR):
            server.refuse()
            deaths.append(time.monotonic())
            ended.wait(DEAD_FOR)
            server.listen()

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(work)
        try:
            yield deaths
        finally:
            ended.set()
            working.result()


def chats(client: OllamaClient, seconds: float) -> Tally:
    """Begin calls at a steady rate, whatever becomes of those before; return how they ended."""

    def chat(number: int, due: float) -> Told:
        strategy = STRATEGIES[number % len(STRATEGIES)]
        try:
            reply = client.chat(f"This is question {number}.", using=strategy)
        except OllamaBridgeError as error:
            return Told(error.code, time.monotonic() - due, strategy)
        how = "answered" if f"question {number}." in reply else "another's answer"
        hops = len({attempt.endpoint for attempt in reply.attempts}) - 1
        return Told(how, time.monotonic() - due, strategy, reply.endpoint, hops)

    with ThreadPoolExecutor(100) as threads:
        begun = time.monotonic()
        calls = []
        for number in range(int(seconds * RATE)):
            due = begun + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            calls.append(threads.submit(chat, number, due))
        return Tally([call.result() for call in calls])


def streams(client: OllamaClient, seconds: float) -> Tally:
    """Do the same with streams, on one loop."""

    async def read(number: int, due: float) -> Told:
        strategy = STRATEGIES[number % len(STRATEGIES)]
        first = 0.0
        try:
            async with client.astream(f"This is question {number}.", using=strategy) as chunks:
                async for _ in chunks:
                    first = first or time.monotonic() - due
        except OllamaBridgeError as error:
            if not (isinstance(error, StreamInterrupted) and chunks.text and error.partial):
                return Told(error.code, time.monotonic() - due, strategy)
            return Told(BEGUN, first, strategy)
        reply = chunks.reply
        how = "answered" if f"question {number}." in reply else "another's answer"
        hops = len({attempt.endpoint for attempt in reply.attempts}) - 1
        return Told(how, first, strategy, reply.endpoint, hops)

    async def read_all() -> Tally:
        loop = asyncio.get_running_loop()
        begun = time.monotonic()
        calls: list[Awaitable[Told]] = []
        for number in range(int(seconds * RATE)):
            due = begun + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            calls.append(loop.create_task(read(number, due)))
        return Tally(await asyncio.gather(*calls))

    return asyncio.run(read_all())


@pytest.mark.parametrize("ask", [chats, streams])
def test_all_calls_are_answered_though_one_endpoint_is_killed_every_5_seconds(
    servers: list[FakeOllama],
    client: OllamaClient,
    say: Callable[[str], None],
    ask: Callable[[OllamaClient, float], Tally],
) -> None:
    ask(client, WARM_UP)
    calm = ask(client, CALM)
    with dying(servers[0]) as deaths:
        rough = ask(client, ROUGH)
    for title, tally in {"undisturbed": calm, f"{len(deaths)} deaths": rough}.items():
        say(f"{ask.__name__}, {RATE} a second, {title}: {tally}")
    assert calm.ends == {"answered": CALM * RATE}
    assert rough.ends.keys() <= {"answered", BEGUN}
    assert rough.ends[BEGUN] < len(rough.hopped)
    assert len(deaths) == ROUGH // KILLED_EVERY
    assert rough.p99 < 2 * calm.p99 + CONNECT_TIMEOUT
