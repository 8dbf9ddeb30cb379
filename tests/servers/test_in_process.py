"""The chat view as a project's own tests ask it: without a server, through Django's clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path
from django.views.decorators.cache import cache_control

from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama

from .running import QUICK

if TYPE_CHECKING:
    from pytest_django import Settings

ANSWER = "Wet."
ENDED = b"event: done"


def bare() -> Any:
    return ChatView.as_view()


def decorated() -> Any:
    return cache_control(private=True)(ChatView.as_view())


def decorated_on_a_loop() -> Any:
    """Decorate it as a site does whose URLs are imported under ASGI."""

    async def decorate() -> Any:
        return decorated()

    return asyncio.run(decorate())


@pytest.fixture
def fake_ollama() -> Iterator[FakeOllama]:
    with FakeOllama(answer=ANSWER) as server:
        yield server


@pytest.fixture
def view(request: pytest.FixtureRequest, settings: Settings, fake_ollama: FakeOllama) -> Any:
    """The view as the test's parameter makes it, which is also at ``/``."""
    settings.OLLAMA_BRIDGE = {"BASE_URL": fake_ollama.url, **QUICK}
    found = request.param()
    urls = ModuleType("urls")
    setattr(urls, "urlpatterns", [path("", found)])  # noqa: B010  # mypy would not have it otherwise
    settings.ROOT_URLCONF = urls
    return found


def made(*makers: Callable[[], Any]) -> pytest.MarkDecorator:
    names = [maker.__name__.replace("_", "-") for maker in makers]
    return pytest.mark.parametrize("view", makers, ids=names, indirect=True)


def asked(asker: Any, *, stream: bool) -> Any:
    question = json.dumps({"message": "What is water?", "stream": stream})
    return asker.post("/", question, content_type="application/json")


def assert_whole(response: Any) -> None:
    response = getattr(response, "render", lambda: response)()
    assert response.status_code == 200
    assert json.loads(response.content)["response"] == ANSWER


async def joined(pieces: Any) -> bytes:
    return b"".join([piece async for piece in pieces])


@made(bare, decorated)
def test_a_client_is_answered(view: Any) -> None:
    assert_whole(asked(Client(), stream=False))
    assert ENDED in asked(Client(), stream=True).getvalue()


@made(decorated_on_a_loop)
def test_a_client_is_answered_although_the_view_was_decorated_for_a_loop(view: Any) -> None:
    assert_whole(asked(Client(), stream=False))


@made(bare, decorated, decorated_on_a_loop)
def test_an_async_client_is_answered(view: Any) -> None:
    async def ask() -> None:
        assert_whole(await asked(AsyncClient(), stream=False))
        streamed = await asked(AsyncClient(), stream=True)
        assert ENDED in await joined(streamed.streaming_content)

    asyncio.run(ask())


@made(bare, decorated)
def test_a_request_of_a_factory_is_answered(view: Any) -> None:
    assert_whole(view(asked(RequestFactory(), stream=False)))
    assert ENDED in view(asked(RequestFactory(), stream=True)).getvalue()


@made(bare, decorated_on_a_loop)
def test_a_request_of_an_async_factory_is_answered_on_a_loop(view: Any) -> None:
    async def ask() -> None:
        assert_whole(await view(asked(AsyncRequestFactory(), stream=False)))
        streamed = await view(asked(AsyncRequestFactory(), stream=True))
        assert ENDED in await joined(streamed.streaming_content)

    asyncio.run(ask())
