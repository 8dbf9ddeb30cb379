"""One view for both kinds of server, and what of it a subclass may change."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import (
    iscoroutinefunction,
)
from django.db import connections
from django.test import AsyncRequestFactory, RequestFactory
from django.urls import resolve
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.views import APIView

from ollama_bridge import OllamaClient
from ollama_bridge.api import threads, views
from ollama_bridge.api.concurrency import calls_by_user
from ollama_bridge.api.entry import DualView
from ollama_bridge.api.views import ChatView, HealthView, LiveView
from ollama_bridge.testing import FakeOllama, faults
from tests.api import sse
from tests.api.looped import HI, answered, request
from tests.api.sites import EVENTS, JSON, wait_until
from tests.api.stepped import Stepped

if TYPE_CHECKING:
    from django.http import HttpRequest
    from rest_framework.request import Request

Configure = Callable[..., None]


class Marked(ChatView):
    permission_classes = (AllowAny,)


class OfSync(Marked):
    """Overrides what serves WSGI, and nothing else."""

    def post(self, request: Request, *_: object, **__: object) -> Any:
        response = super().post(request)
        response.headers["X-Served-By"] = f"post in {threading.current_thread().name}"
        return response


class OfBoth(OfSync):
    async def apost(self, _request: Request, asked: views.Question) -> Any:
        response = await super().apost(_request, asked)
        response.headers["X-Served-By"] = "apost"
        return response


class OfAsync(Marked):
    async def apost(self, _request: Request, asked: views.Question) -> Any:
        response = await super().apost(_request, asked)
        response.headers["X-Served-By"] = "apost"
        return response


class Dispatching(Marked):
    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> Any:
        response = super().dispatch(request, *args, **kwargs)
        response.headers["X-Served-By"] = "dispatch"
        return response


class SyncAgain(OfAsync):
    """Overrides the sync method below a class with an async one."""

    def post(self, request: Request, *_: object, **__: object) -> Response:
        return Response({"own": request.method}, headers={"X-Served-By": "post"})


@pytest.mark.usefixtures("configure")
class TestASubclass:
    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    @pytest.mark.parametrize(
        ("view", "by"),
        [(OfSync, "post in "), (OfBoth, "apost"), (OfAsync, "apost"), (Dispatching, "dispatch")],
    )
    def test_is_served_by_what_it_overrides(
        self, view: type[ChatView], by: str, headers: Mapping[str, str]
    ) -> None:
        async def ask() -> tuple[str, bytes]:
            response: Any = await view.as_view()(request(headers))  # type: ignore[misc]
            if not response.streaming:
                return response.headers["X-Served-By"], response.render().content
            read = b"".join([piece async for piece in response])
            await asyncio.to_thread(response.close)
            return response.headers["X-Served-By"], read

        found, body = asyncio.run(ask())
        assert found.startswith(by)
        assert "MainThread" not in found
        assert b'"success": true' in body or b'"success":true' in body

    def test_that_overrides_the_sync_method_of_an_async_class_is_served_by_that(self) -> None:
        response = answered(SyncAgain.as_view(), request())
        assert response.headers["X-Served-By"] == "post"

    @pytest.mark.parametrize("twin", [False, True], ids=["alone", "with apost"])
    @pytest.mark.parametrize(
        "hook", ["finalize_response", "answered", "failed", "get_problem", "told"]
    )
    def test_may_ask_the_database_in_what_runs_around_the_handler_unless_that_is_its_own(
        self, fake_ollama: FakeOllama, hook: str, twin: bool
    ) -> None:
        ran_in: set[threading.Thread] = set()

        def noting(self: Any, *args: object, **kwargs: object) -> Any:
            ran_in.add(threading.current_thread())
            return getattr(super(Noting, self), hook)(*args, **kwargs)

        own = {hook: noting} | ({"apost": OfAsync.apost} if twin else {})
        Noting: Any = type("Noting", (OfAsync,), own)  # noqa: N806  # it is a class

        async def ask() -> list[str]:
            response = await Noting.as_view()(request(EVENTS))
            read = b"".join([piece async for piece in response])
            await asyncio.to_thread(response.close)
            return [event.name for event in sse.parse(read)]

        assert asyncio.run(ask())[-1] == "done"
        fake_ollama.misbehave(faults.CutStream(after=3))
        assert asyncio.run(ask())[-1] == "error"
        assert (threading.current_thread() in ran_in) is twin
        assert ran_in

    def test_with_an_async_method_and_no_sync_one_refuses_that_method_only(self) -> None:
        class Odd(views.BridgeView):
            permission_classes = (AllowAny,)

            def get(self, _request: Request) -> Response:
                return Response({"got": True})

            async def apatch(self, _request: Request, _prepared: object) -> Response:
                return Response({"patched": True})

        factory: Any = AsyncRequestFactory()
        assert answered(Odd.as_view(), factory.get("/")).data == {"got": True}
        assert answered(Odd.as_view(), factory.patch("/")).status_code == 405

    def test_may_be_left_without_a_method_by_as_view(self) -> None:
        view = Marked.as_view(http_method_names=["options"])
        assert answered(view, request()).status_code == 405

    def test_is_served_in_a_thread_without_aiohttp(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threads, "find_spec", lambda _name: None)
        assert ChatView._native_methods() == frozenset()
        assert "X-Served-By" not in answered(OfAsync.as_view(), request()).headers

    def test_that_waits_in_a_thread_streams_live_and_can_be_left(
        self, fake_ollama: FakeOllama
    ) -> None:
        stepped = Stepped()
        fake_ollama.misbehave(stepped)
        stepped.step()

        async def leave() -> None:
            response: Any = await OfSync.as_view()(request(EVENTS))  # type: ignore[misc]
            assert response.is_async
            pieces = aiter(response)
            assert sse.texts(sse.parse(await anext(pieces))) == "I"
            stepped.step()
            assert sse.texts(sse.parse(await anext(pieces))) == " am"
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.to_thread(response.close)
            await asyncio.to_thread(
                fake_ollama.wait_for, lambda server: len(server.disconnects) == 1
            )

        began = time.monotonic()
        asyncio.run(leave())
        assert time.monotonic() - began < 10  # no thread stays, not even until a heartbeat
        stepped.let_go()
        wait_until(lambda: not calls_by_user._began)

    @pytest.mark.parametrize("view", [Marked, HealthView])
    def test_may_ask_the_database_for_its_client(
        self, fake_ollama: FakeOllama, view: type[views.BridgeView]
    ) -> None:
        ran_in: set[threading.Thread] = set()

        class Own(view):  # type: ignore[misc, valid-type]
            def get_client(self) -> OllamaClient:
                ran_in.add(threading.current_thread())
                client: OllamaClient = super().get_client()
                return client

        asked: Any = request() if view is Marked else AsyncRequestFactory().get("/")
        assert answered(Own.as_view(), asked).data["success"] is True
        assert ran_in
        assert threading.current_thread() not in ran_in
        assert fake_ollama.requests

    def test_may_have_a_client_of_its_own(self, fake_ollama: FakeOllama) -> None:
        with FakeOllama(models=["mistral"]) as other:
            client = OllamaClient(base_url=other.url, model="mistral")

            class Own(Marked):
                def get_client(self) -> OllamaClient:
                    return client

            assert answered(Own.as_view(), request()).data["model"] == "mistral"
            client.close()
        assert fake_ollama.requests == []

    def test_may_prepare_what_its_async_method_needs(self) -> None:
        class Counting(views.BridgeView):
            permission_classes = (AllowAny,)

            def prepare(self, request: Request) -> str:
                return f"{request.query_params['n']} in {threading.current_thread().name}"

            def get(self, request: Request) -> Response:
                return Response(self.prepare(request))

            async def aget(self, _request: Request, prepared: str) -> Response:
                return Response(prepared)

        request: Any = AsyncRequestFactory().get("/?n=5")
        found = answered(Counting.as_view(), request).data
        assert found.startswith("5 in ")
        assert "MainThread" not in found

    def test_without_anything_to_prepare_is_handed_nothing(self) -> None:
        class Plain(views.BridgeView):
            permission_classes = (AllowAny,)

            def get(self, _request: Request) -> Response:
                return Response("sync")

            async def aget(self, _request: Request, prepared: object) -> Response:
                return Response({"prepared": prepared})

        request: Any = AsyncRequestFactory().get("/")
        assert answered(Plain.as_view(), request).data == {"prepared": None}


class TestOneViewForBothKindsOfServer:
    @pytest.fixture
    def view(self) -> Any:
        return ChatView.as_view()

    def test_is_async_only_where_a_loop_runs(self, view: Any) -> None:
        async def on_a_loop() -> tuple[bool, bool]:
            return iscoroutinefunction(view), await asyncio.to_thread(iscoroutinefunction, view)

        assert not iscoroutinefunction(view)
        assert asyncio.run(on_a_loop()) == (True, False)

    def test_is_what_the_address_leads_to(self) -> None:
        for name, kind in (("chat", ChatView), ("health", HealthView), ("live", LiveView)):
            found: Any = next(
                each.func
                for address in ("/api/chat/", "/api/health/", "/api/health/live/")
                if (each := resolve(address)).func.view_class is kind  # type: ignore[attr-defined]
            )
            assert isinstance(found, DualView), name

    def test_has_what_django_and_rest_framework_look_for(self) -> None:
        plain: Any = APIView.as_view()
        view: Any = ChatView.as_view(permission_classes=[AllowAny])
        assert view.view_class is ChatView
        assert view.cls is ChatView
        assert view.csrf_exempt is True
        assert view.__name__ == plain.__name__
        assert view.__module__ == ChatView.__module__
        assert view.initkwargs == view.view_initkwargs == {"permission_classes": [AllowAny]}
        assert view._non_atomic_requests == {"default"}
        assert callable(view.__wrapped__)

    def test_has_nothing_else(self, view: Any) -> None:
        with pytest.raises(AttributeError, match=r"'DualView' object has no attribute 'nothing'"):
            view.nothing  # noqa: B018  # it raises

    def test_shows_itself(self, view: Any) -> None:
        assert "DualView" in repr(view)

    @pytest.mark.usefixtures("configure")
    def test_can_be_wrapped_in_decorators(self) -> None:
        view: Any = never_cache(require_POST(Marked.as_view()))
        request = RequestFactory().post("/", HI, "application/json")
        assert view(request).status_code == 200
        assert view(RequestFactory().get("/")).status_code == 405

    def test_may_have_many_databases_and_holds_a_transaction_in_none(self, view: Any) -> None:
        assert view._non_atomic_requests == set(connections)
