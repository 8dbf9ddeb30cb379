"""Running servers, of each kind one at a time, whatever the tests configure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ollama_bridge.testing import FakeModel, FakeOllama

from .databases import Database, postgres_database
from .running import GUNICORN, UVICORN, Server, serving

GZIP = {"middleware": ["django.middleware.gzip.GZipMiddleware"]}
SHORT = "Water is wet, and blue."
LONG = "Say this again. " * 100
THINKER = FakeModel("thinker", capabilities=("completion", "thinking"))


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeOllama]:
    """The model's server of all sites; a test gets it as ``ollama``."""
    with FakeOllama(models=("llama3.2", THINKER), answer=_answer) as server:
        yield server


def _answer(prompt: str) -> str:
    return SHORT if len(prompt) < len(LONG) else prompt


@pytest.fixture
def ollama(upstream: FakeOllama) -> Iterator[FakeOllama]:
    yield upstream
    upstream.behave()
    upstream.listen()


@pytest.fixture(scope="session")
def _serve(upstream: FakeOllama) -> Iterator[Callable[..., Server]]:
    running: dict[str, Server] = {}
    with ExitStack() as stack:

        def serve(kind: str, *, is_packing: bool) -> Server:
            name = f"{kind} {is_packing}"
            if name not in running:
                site: dict[str, Any] = GZIP if is_packing else {}
                running[name] = stack.enter_context(serving(kind, upstream.url, **site))
            return running[name]

        yield serve


@pytest.fixture(params=[GUNICORN, UVICORN])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def is_packing(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def server(
    kind: str, is_packing: bool, ollama: FakeOllama, _serve: Callable[..., Server]
) -> Server:
    """A server of each kind, with and without ``GZipMiddleware``, as if it had just begun."""
    found = _serve(kind, is_packing=is_packing)
    found.configure()
    return found


@pytest.fixture
def plain_server(kind: str, ollama: FakeOllama, _serve: Callable[..., Server]) -> Server:
    """A server of each kind, without ``GZipMiddleware``."""
    found = _serve(kind, is_packing=False)
    found.configure()
    return found


@pytest.fixture
def uvicorn(ollama: FakeOllama, _serve: Callable[..., Server]) -> Server:
    found = _serve(UVICORN, is_packing=False)
    found.configure()
    return found


@pytest.fixture
def postgres() -> Iterator[Database]:
    with postgres_database() as database:
        yield database
