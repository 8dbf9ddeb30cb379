"""Neither threads nor database connections wait for a model."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)
from django.contrib.auth.models import User
from django.db import connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import RequestFactory
from django.utils.deprecation import MiddlewareMixin
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny, BasePermission

from ollama_bridge.api import threads
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama
from tests.api import sse
from tests.api.looped import HI, answered, request
from tests.api.sites import EVENTS, JSON, LONGEST, Asgi, Site, Wsgi, wait_until
from tests.api.stepped import Stepped
from tests.net.held import Held

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase
    from rest_framework.request import Request

Configure = Callable[..., None]


@pytest.fixture
def request_threads() -> Callable[[], set[threading.Thread]]:
    """Return what tells which threads are kept for requests, by asgiref or for Django's tests."""
    before = set(threading.enumerate())

    def found() -> set[threading.Thread]:
        now = set(threading.enumerate()) - before
        return {each for each in now if each.name.startswith("ThreadPoolExecutor")}

    return found


class TestNoThreadWaits:
    @pytest.fixture
    def held(self, fake_ollama: FakeOllama) -> Iterator[Held]:
        held = Held()
        fake_ollama.misbehave(held)
        yield held
        held.let_go()

    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    def test_for_an_answer_that_has_not_begun(
        self,
        asgi: Site,
        configure: Configure,
        fake_ollama: FakeOllama,
        held: Held,
        headers: Mapping[str, str],
        request_threads: Callable[[], set[threading.Thread]],
    ) -> None:
        configure(MAX_CALLS_PER_USER=None)
        calls = [asgi.begin(headers=headers) for _ in range(20)]
        fake_ollama.wait_for(lambda server: server.in_flight == 20)
        wait_until(lambda: not request_threads())
        held.let_go()
        assert [call.result(LONGEST).status for call in calls] == [200] * 20

    def test_for_the_next_piece_of_one_that_has(
        self,
        asgi: Site,
        configure: Configure,
        fake_ollama: FakeOllama,
        request_threads: Callable[[], set[threading.Thread]],
    ) -> None:
        configure(MAX_CALLS_PER_USER=None)
        stepped = Stepped()
        stepped.step()
        fake_ollama.misbehave(stepped)
        answers = [asgi.post() for _ in range(20)]
        assert [answer.read() for answer in answers]
        wait_until(lambda: not request_threads())
        stepped.let_go()
        assert [answer.events()[-1].name for answer in answers] == ["done"] * 20

    @pytest.mark.usefixtures("no_sync_call")
    def test_for_the_health_of_the_server(self, asgi: Site) -> None:
        assert asgi.get("/api/health/", JSON).json()["status"] == "healthy"


class TestAThreadIsReleased:
    def test_with_its_connections_closed_and_there_is_a_new_one_when_needed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[threading.Thread] = []

        def hang_up() -> bool:
            closed.append(threading.current_thread())
            return True

        monkeypatch.setattr(threads, "hang_up", hang_up)

        async def request() -> list[threading.Thread]:
            async with ThreadSensitiveContext():
                first = await sync_to_async(threading.current_thread)()
                await threads.release()
                await threads.release()
                second = await sync_to_async(threading.current_thread)()
                wait_until(lambda: not first.is_alive())
                return [first, second]

        first, second = asyncio.run(request())
        assert closed == [first]
        assert second is not first

    def test_but_not_that_of_somebody_who_waits_for_it(self) -> None:
        """As sync-only middleware does."""

        async def inner() -> int:
            await threads.release()
            return len(SyncToAsync.context_to_thread_executor)

        async def request() -> int:
            async with ThreadSensitiveContext():
                return await sync_to_async(async_to_sync(inner))()

        assert asyncio.run(request()) == 1

    def test_and_nothing_is_done_where_no_request_has_one(self) -> None:
        asyncio.run(threads.release())


class Transacting(MiddlewareMixin):
    """Keeps a transaction open from the request to its response."""

    def process_request(self, request: Any) -> None:
        request.transaction = transaction.atomic()
        request.transaction.__enter__()
        User.objects.create(username="ada")

    def process_response(self, request: Any, response: HttpResponseBase) -> HttpResponseBase:
        request.transaction.__exit__(None, None, None)
        return response


class Members(BasePermission):
    def has_permission(self, request: Request, _view: object) -> bool:
        return User.objects.filter(username=request.user.get_username(), is_active=True).exists()


@pytest.mark.usefixtures("configure")
class TestTheDatabase:
    """It may be asked in all that comes before the question."""

    class Prompting(ChatView):
        def get_system_prompt(self, _data: Mapping[str, Any]) -> str:
            return f"There are {User.objects.count()} users."

    class ByName(BaseAuthentication):
        def authenticate(self, request: Request) -> tuple[User, None]:
            return User.objects.get(username=request.headers["X-Name"]), None

    @pytest.fixture
    def ada(self, settings: Any) -> None:
        settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
        User.objects.create_user("ada", password="lovelace")

    @pytest.mark.usefixtures("ada")
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    def test_knows_who_asks(self, site: Site, headers: Mapping[str, str]) -> None:
        known = base64.b64encode(b"ada:lovelace").decode()
        unknown = base64.b64encode(b"ada:byron").decode()
        assert site.post(None, {**headers, "Authorization": f"Basic {known}"}).status == 200
        assert site.post(None, {**headers, "Authorization": f"Basic {unknown}"}).status == 401

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("kind", "headers"),
        [(Wsgi, EVENTS), (Asgi, EVENTS), (Asgi, JSON)],
        ids=["a stream under WSGI", "a stream under ASGI", "a chat under ASGI"],
    )
    def test_is_hung_up_before_the_model_is_asked(
        self,
        configure: Configure,
        fake_ollama: FakeOllama,
        kind: type[Site],
        headers: Mapping[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        held, asked, closed = Held(), set(), set()

        class Asking(AllowAny):
            def has_permission(self, *_: object) -> bool:
                asked.add(threading.current_thread())
                return User.objects.count() == 0

        close = DatabaseWrapper.close

        def noted(self: DatabaseWrapper) -> None:
            closed.add(threading.current_thread())
            close(self)

        monkeypatch.setattr(f"{__name__}.Members", Asking)
        monkeypatch.setattr(DatabaseWrapper, "close", noted)
        configure(PERMISSION_CLASSES=[f"{__name__}.Members"])
        fake_ollama.misbehave(held)
        with kind() as site:
            call = site.begin(headers=headers)
            fake_ollama.wait_for(lambda server: server.in_flight == 1)
            assert asked
            assert asked <= closed
            held.let_go()
            assert call.result(LONGEST).rest()

    @pytest.mark.usefixtures("ada")
    @pytest.mark.django_db(transaction=True)
    def test_may_be_asked_by_authentication_permission_and_prompt(
        self, fake_ollama: FakeOllama
    ) -> None:
        view = self.Prompting.as_view(
            permission_classes=[Members], authentication_classes=[self.ByName]
        )
        response = answered(view, request({"X-Name": "ada"}))
        assert response.status_code == 200
        assert fake_ollama.chats[0].json["messages"][0]["content"] == "There are 1 users."

    @pytest.mark.django_db
    def test_stays_open_inside_a_transaction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in tests, whose data would be gone."""
        User.objects.create_user("ada")
        closed: set[int] = set()
        monkeypatch.setattr(DatabaseWrapper, "close", lambda self: closed.add(id(self)))
        assert connections["default"].in_atomic_block
        request = RequestFactory().post("/", HI, "application/json", headers=EVENTS)
        response = ChatView.as_view(permission_classes=[AllowAny])(request)
        assert sse.parse(b"".join(response))[-1].name == "done"
        assert id(connections["default"]) not in closed
        assert User.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    def test_keeps_what_middleware_writes_in_a_transaction(
        self, site: Site, settings: Any, headers: Mapping[str, str]
    ) -> None:
        settings.MIDDLEWARE = [f"{__name__}.Transacting", *settings.MIDDLEWARE]
        assert site.post(headers=headers).rest()
        assert User.objects.filter(username="ada").exists()

    @pytest.mark.django_db(transaction=True)
    def test_is_hung_up_outside_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        User.objects.count()
        closed: set[int] = set()
        monkeypatch.setattr(DatabaseWrapper, "close", lambda self: closed.add(id(self)))
        threads.hang_up()
        assert id(connections["default"]) in closed
