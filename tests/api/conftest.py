from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.backends.sqlite3.base import DatabaseWrapper
from rest_framework.test import APIClient

from ollama_bridge import OllamaClient

from .sites import SITES, Asgi, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_django import Settings

    from ollama_bridge.testing import FakeOllama


@pytest.fixture(autouse=True)
def _counts_of_the_throttle_are_forgotten() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(autouse=True)
def _connections_of_threads_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those to a database in memory: Django's own ``close()`` keeps them."""
    wrappers: list[DatabaseWrapper] = []
    connect = DatabaseWrapper.get_new_connection

    def noted(self: DatabaseWrapper, params: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            wrappers.append(self)
        return connect(self, params)

    monkeypatch.setattr(DatabaseWrapper, "get_new_connection", noted)
    yield
    for wrapper in wrappers:
        if wrapper.connection is not None:
            wrapper.connection.close()
            wrapper.connection = None


@pytest.fixture
def configure(settings: Settings, fake_ollama: FakeOllama) -> Callable[..., None]:
    """Set ``OLLAMA_BRIDGE`` for the running fake server; done once without changes."""

    def configure(**changes: object) -> None:
        quick = {"RETRY_INITIAL_DELAY": 0.001, "RETRY_MAX_DELAY": 0.002}
        settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, **quick, **changes}

    configure()
    return configure


@pytest.fixture(params=SITES, ids=lambda kind: kind.name)
def site(request: pytest.FixtureRequest, configure: Callable[..., None]) -> Iterator[Site]:
    """The site under WSGI and under ASGI."""
    kind: type[Site] = request.param
    with kind() as site:
        yield site


@pytest.fixture
def asgi(configure: Callable[..., None]) -> Iterator[Asgi]:
    """The site under ASGI alone."""
    with Asgi() as site:
        yield site


@pytest.fixture
def no_sync_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every call fail that would keep a thread waiting."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a thread would wait")

    for name in ("chat", "stream", "health_check"):
        monkeypatch.setattr(OllamaClient, name, fail)


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture
def member() -> APIClient:
    """A client that somebody uses who is logged in, but not in the database."""
    return _client_of(User(pk=7, username="ada"))


@pytest.fixture
def staff() -> APIClient:
    """A client that one of the staff uses."""
    return _client_of(User(pk=8, username="grace", is_staff=True))


def _client_of(user: User) -> APIClient:
    client = APIClient()
    client.force_authenticate(user)
    return client


@pytest.fixture
def ask(member: APIClient, configure: Callable[..., None]) -> Callable[..., Any]:
    """Post fields to ``chat/`` as a member; a message is there unless it is given."""

    def ask(**fields: object) -> Any:
        body = json.dumps({"message": "What is water?"} | fields)
        return member.post("/api/chat/", body, content_type="application/json")

    return ask
