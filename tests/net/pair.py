"""Two servers, and clients that may go to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ollama_bridge import OllamaClient
from ollama_bridge.testing import FakeOllama

if TYPE_CHECKING:
    from ollama_bridge import OllamaBridgeError
    from ollama_bridge.core.types import Attempt

Own: TypeAlias = Mapping[str, Any]

NOTHING: Own = {}
QUICK: Own = {"retry_initial_delay": 0.01, "retry_max_delay": 0.02}


class Pair(NamedTuple):
    """The server that is asked first, the other, and what makes clients of both."""

    a: FakeOllama
    b: FakeOllama
    client: Callable[..., OllamaClient]


@contextmanager
def pair(**servers: Any) -> Iterator[Pair]:
    """Give two servers and a maker of clients, which are closed at the end."""
    made: list[OllamaClient] = []

    def client(
        *, a: Own = NOTHING, b: Own = NOTHING, strategy: str = "failover", **settings: Any
    ) -> OllamaClient:
        endpoints = {"a": {"BASE_URL": first.url, **a}, "b": {"BASE_URL": second.url, **b}}
        routes = {"default": {"STRATEGY": strategy, "TARGETS": ["a", "b"]}}
        whole = {"endpoints": endpoints, "routes": routes, "cache": None, **QUICK, **settings}
        made.append(OllamaClient(**whole))
        return made[-1]

    with FakeOllama(**servers) as first, FakeOllama(**servers) as second:
        try:
            yield Pair(first, second, client)
        finally:
            for each in made:
                each.close()


def codes(attempts: tuple[Attempt, ...]) -> list[str]:
    """Return what became of each attempt, as "endpoint:code"; of one that was answered "a:"."""
    return [f"{attempt.endpoint}:{attempt.code}" for attempt in attempts]


def tried(error: OllamaBridgeError) -> list[str]:
    return codes(error.attempts)
