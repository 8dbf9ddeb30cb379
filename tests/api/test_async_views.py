"""The views on an event loop answer as they do in a thread, and no thread waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from ollama_bridge import ollama_client
from ollama_bridge.api.concurrency import calls_by_user
from ollama_bridge.api.views import ChatView
from ollama_bridge.testing import FakeOllama, faults
from tests.api import sse
from tests.api.looped import HI
from tests.api.sites import (
    EVENTS,
    JSON,
    LONGEST,
    MEMBER,
    OPEN,
    SITES,
    STAFF,
    Site,
    wait_until,
)

Configure = Callable[..., None]


@pytest.mark.usefixtures("no_sync_call")
class TestThroughDjangosOwnClient:
    @pytest.fixture(autouse=True)
    def _open(self, configure: Configure) -> None:
        configure(PERMISSION_CLASSES=OPEN)

    def test_an_answer_comes_whole(self) -> None:
        async def ask() -> Any:
            return await AsyncClient().post("/api/chat/", HI, content_type="application/json")

        response = asyncio.run(ask())
        assert response.status_code == 200
        assert response.json()["success"] is True
        assert "no-store" in response.headers["Cache-Control"]

    def test_an_answer_comes_as_events(self) -> None:
        async def ask() -> bytes:
            response: Any = await AsyncClient().post(
                "/api/chat/", HI | {"stream": True}, content_type="application/json"
            )
            assert isinstance(response, StreamingHttpResponse)
            assert response.is_async
            return b"".join([piece async for piece in response])

        assert sse.parse(asyncio.run(ask()))[-1].name == "done"

    def test_health_is_told(self) -> None:
        async def ask() -> Any:
            return await AsyncClient().get("/api/health/")

        assert asyncio.run(ask()).json()["status"] == "healthy"
        ollama_client.circuit_breaker.force_open()
        assert asyncio.run(ask()).status_code == 503

    def test_a_process_says_that_it_lives(self) -> None:
        async def ask() -> Any:
            return await AsyncClient().get("/api/health/live/")

        assert asyncio.run(ask()).json() == {"success": True, "status": "alive"}


REFUSALS: list[Any] = [
    pytest.param({"body": b"{"}, id="no JSON"),
    pytest.param({"body": b"[]"}, id="no object"),
    pytest.param({"body": b""}, id="no body"),
    pytest.param({"body": b'{"message": 5}'}, id="a wrong field"),
    pytest.param({"body": b'{"message": "Hi", "stream": 1}'}, id="a wrong stream"),
    pytest.param({"body": b" " * 300_000}, id="a large body"),
    pytest.param({"Content-Type": "text/plain"}, id="no JSON by its own word"),
    pytest.param({"Content-Length": "many"}, id="no length"),
    pytest.param({"Accept": "text/html"}, id="another format"),
    pytest.param({"Authorization": "Basic !", "who": None}, id="wrong credentials"),
    pytest.param({"who": None}, id="nobody"),
    *(pytest.param({"method": method}, id=method) for method in ("GET", "PUT", "DELETE")),
    pytest.param({"settings": {"PERMISSION_CLASSES": ["nowhere.IsAdmin"]}}, id="no permission"),
    pytest.param({"settings": {"TIMEOUT": "soon"}}, id="a wrong setting"),
    pytest.param({"settings": {"MAX_BODY_BYTES": 10}}, id="a small limit"),
    pytest.param({"fault": faults.model_missing()}, id="no model"),
    pytest.param({"fault": faults.Reset()}, id="no server"),
    pytest.param({"fault": faults.rate_limited(7)}, id="a limit of the server"),
]


class TestARefusal:
    @pytest.fixture(autouse=True)
    def _plain(self, configure: Configure) -> None:
        configure(MAX_RETRIES=0)

    def _refused(self, site: Site, refusal: Mapping[str, Any], **headers: str) -> Any:
        refusal = {"X-Request-ID": "mine", **headers, **refusal}
        method, body = refusal.pop("method", "POST"), refusal.pop("body", b'{"message": "Hi"}')
        who = refusal.pop("who", MEMBER)
        answer = site.send(method, "/api/chat/", body, refusal, who).result(LONGEST)
        told = {name: text for name, text in answer.headers.items() if name != "Expires"}
        return answer.status, told, answer.json()

    @pytest.mark.parametrize("refusal", REFUSALS)
    @pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
    def test_is_the_same_whatever_the_server_speaks(
        self,
        configure: Configure,
        fake_ollama: FakeOllama,
        refusal: Mapping[str, Any],
        accept: str,
    ) -> None:
        refusal = dict(refusal)
        configure(MAX_RETRIES=0, **refusal.pop("settings", {}))
        if "fault" in refusal:
            fake_ollama.misbehave(refusal.pop("fault"))
        found = []
        for kind in SITES:
            with kind() as site:
                found.append(self._refused(site, refusal, Accept=accept))
        assert found[0] == found[1]
        assert found[0][0] >= 400
        assert found[0][2]["success"] is False

    def test_by_the_throttle_is_the_same_too(self, site: Site, configure: Configure) -> None:
        configure(THROTTLE_RATE="1/min")
        assert site.post(headers=JSON).status == 200
        refused = site.post(headers=JSON)
        assert (refused.status, refused.json()["code"]) == (429, "throttled")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60

    def test_tells_its_detail_to_staff_only(self, site: Site, fake_ollama: FakeOllama) -> None:
        fake_ollama.misbehave(faults.model_missing())
        assert "detail" not in site.post(MEMBER, JSON).json()
        assert "ollama pull" in site.post(STAFF, JSON).json()["detail"]


class TestLeavingEarly:
    @pytest.fixture(autouse=True)
    def _one(self, configure: Configure) -> None:
        configure(MAX_CALLS_PER_USER=1, MAX_RETRIES=0)

    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    def test_by_the_client_closes_the_connection_to_the_server_and_frees_the_seat(
        self, asgi: Site, fake_ollama: FakeOllama, headers: Mapping[str, str]
    ) -> None:
        fake_ollama.misbehave(faults.BlackHole())
        call = asgi.begin(headers=headers)
        fake_ollama.wait_for(lambda server: server.in_flight == 1)
        asgi.answers[0].close()
        with pytest.raises(ConnectionAbortedError):
            call.result(LONGEST)
        fake_ollama.wait_for(lambda server: len(server.disconnects) == 1)
        wait_until(lambda: not calls_by_user._began)
        assert ollama_client.circuit_breaker.state == "closed"
        assert len(fake_ollama.chats) == 1

    @pytest.mark.parametrize("headers", [JSON, EVENTS], ids=["chat", "stream"])
    def test_by_a_cancelled_task_does_so_too(
        self, configure: Configure, fake_ollama: FakeOllama, headers: Mapping[str, str]
    ) -> None:
        configure(PERMISSION_CLASSES=OPEN)
        fake_ollama.misbehave(faults.BlackHole())

        async def leave() -> None:
            client = AsyncClient(headers=headers)
            call = asyncio.create_task(
                client.post("/api/chat/", HI, content_type="application/json")
            )
            await asyncio.to_thread(fake_ollama.wait_for, lambda server: server.in_flight == 1)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(
                fake_ollama.wait_for, lambda server: len(server.disconnects) == 1
            )
            assert not calls_by_user._began

        asyncio.run(leave())


class TestOtherMethods:
    def test_head_and_options_are_as_rest_framework_has_them(self, site: Site) -> None:
        head = site.send("HEAD", "/api/health/", b"", JSON, MEMBER).result(LONGEST)
        options = site.send("OPTIONS", "/api/chat/", b"", JSON, MEMBER).result(LONGEST)
        assert head.status == 200
        assert options.status == 200
        body = options.json()
        assert body["name"] == "Chat"
        assert body["parses"] == ["application/json"]
        assert body["renders"] == ["application/json", "text/event-stream"]
        assert options.headers["Allow"] == "POST, OPTIONS"

    @pytest.mark.parametrize("path", ["/api/chat/", "/api/health/"])
    def test_unknown_ones_are_a_405(self, site: Site, path: str) -> None:
        answer = site.send("PATCH", path, b"{}", JSON, MEMBER).result(LONGEST)
        assert answer.status == 405
        assert answer.json()["code"] == "method_not_allowed"


def test_a_bug_is_djangos_500_under_asgi_too(
    asgi: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ChatView, "get_system_prompt", lambda *_: 1 / 0)
    assert asgi.post(headers=JSON).status == 500
    assert "ZeroDivisionError" in caplog.text
