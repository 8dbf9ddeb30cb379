"""Where a site asks, and what it keeps: the hooks of the chat view."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from rest_framework.permissions import AllowAny
from rest_framework.test import APIRequestFactory, force_authenticate

from ollama_bridge.api.views import ChatView
from ollama_bridge.core import flow
from ollama_bridge.testing import FakeOllama

from .sites import EVENTS, JSON, LONGEST, MEMBER, OPEN, STAFF, Site

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def _open(configure: Configure) -> None:
    configure(PERMISSION_CLASSES=OPEN)


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the site keep answers for a while."""
    monkeypatch.setattr(ChatView, "get_cache_ttl", lambda *_: 300)
    monkeypatch.setattr(flow, "PATIENCE", LONGEST)  # a busy machine may take longer


@pytest.fixture
def shares(keeps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the site keep them for everybody."""
    monkeypatch.setattr(ChatView, "get_cache_scope", lambda *_: "shared")


def source(site: Site, who: User | None = MEMBER) -> str:
    found: str = site.post(who, JSON).json()["source"]
    return found


def test_nothing_is_kept_unless_a_site_says_for_how_long(
    site: Site, fake_ollama: FakeOllama
) -> None:
    assert [source(site) for _ in range(2)] == ["ollama"] * 2
    assert len(fake_ollama.chats) == 2


@pytest.mark.usefixtures("keeps")
def test_the_same_question_of_the_same_user_is_answered_from_the_cache(
    site: Site, fake_ollama: FakeOllama
) -> None:
    first, second = (site.post(headers=JSON).json() for _ in range(2))
    assert (first["source"], second["source"]) == ("ollama", "cache")
    assert second["response"] == first["response"]
    assert second["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert second["request_id"] != first["request_id"]
    assert {*first} == {*second}
    assert len(fake_ollama.chats) == 1


@pytest.mark.usefixtures("keeps")
def test_a_stream_has_it_in_one_piece(site: Site, fake_ollama: FakeOllama) -> None:
    whole = site.post(headers=JSON).json()["response"]
    delta, done = site.post(headers=EVENTS).events()
    assert (delta.name, delta.data) == ("delta", {"text": whole})
    assert (done.name, done.data["source"], done.data["response"]) == ("done", "cache", whole)
    assert len(fake_ollama.chats) == 1


@pytest.mark.usefixtures("keeps")
def test_no_two_users_share_an_answer(site: Site) -> None:
    assert [source(site, who) for who in (MEMBER, STAFF, MEMBER)] == ["ollama", "ollama", "cache"]


@pytest.mark.usefixtures("shares")
def test_unless_the_site_says_so(site: Site) -> None:
    assert [source(site, who) for who in (MEMBER, STAFF, None)] == ["ollama", "cache", "cache"]


@pytest.mark.usefixtures("keeps")
def test_nothing_is_kept_for_visitors_whom_nobody_knows(site: Site) -> None:
    assert [source(site, None) for _ in range(2)] == ["ollama"] * 2


@pytest.mark.usefixtures("shares")
def test_what_the_client_asks_for_is_part_of_the_question(site: Site, configure: Configure) -> None:
    configure(PERMISSION_CLASSES=OPEN, CLIENT_MAY_SET=["options", "system_prompt"])
    questions: list[dict[str, Any]] = [
        {},
        {"options": {"seed": 1}},
        {"system_prompt": "Be brief."},
        {"history": [{"role": "user", "content": "Hello."}]},
    ]
    for question in questions:
        assert site.post(headers=JSON, **question).json()["source"] == "ollama"
        assert site.post(headers=JSON, **question).json()["source"] == "cache"


class Recorded:
    """A client that only takes note of what it is asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def chat(self, _message: str, _system_prompt: str | None = None, **asked: Any) -> Any:
        self.asked = asked
        raise RuntimeError("that was all")


def asked(user: User | AnonymousUser, **hooks: Any) -> dict[str, Any]:
    """Return what a view with these hooks asks for a user."""
    client = Recorded()
    hooks = {name: lambda *_, value=value: value for name, value in hooks.items()}
    own = {**hooks, "permission_classes": [AllowAny], "get_client": lambda _: client}
    view: Any = type("View", (ChatView,), own)
    request = APIRequestFactory().post("/", {"message": "Hi"}, format="json")
    force_authenticate(request, user)
    with pytest.raises(RuntimeError, match="that was all"):
        view.as_view()(request)
    return client.asked


def test_a_user_comes_to_the_same_place_again() -> None:
    assert asked(MEMBER) == {"sticky_key": "user:7"}
    assert asked(AnonymousUser()) == {}


def test_a_site_decides_where_to_ask_and_what_to_keep() -> None:
    assert asked(
        MEMBER,
        get_using="fast",
        get_sticky_key="class 3",
        get_cache_ttl=60,
        get_cache_scope="class 3",
    ) == {"using": "fast", "sticky_key": "class 3", "cache_ttl": 60, "cache_scope": "class 3"}


def test_nothing_is_kept_where_there_is_no_time_or_nobody_to_keep_it_for() -> None:
    assert asked(MEMBER, get_cache_scope="shared", get_sticky_key="") == {}
    assert asked(MEMBER, get_cache_ttl=60, get_cache_scope=None, get_sticky_key="") == {}
    assert asked(AnonymousUser(), get_cache_ttl=60) == {}


def test_the_hooks_see_the_request_as_it_was_validated() -> None:
    seen: list[Mapping[str, Any]] = []

    class View(ChatView):
        permission_classes = (AllowAny,)

        def get_using(self, data: Mapping[str, Any]) -> str | None:
            seen.append(data)
            return None

    request = APIRequestFactory().post("/", {"message": "Hi"}, format="json")
    force_authenticate(request, MEMBER)
    assert View.as_view()(request).status_code == 200
    assert seen == [{"message": "Hi"}]


@pytest.fixture
def another(configure: Configure) -> Iterator[FakeOllama]:
    """A second server, which the settings name."""
    with FakeOllama() as server:
        configure(PERMISSION_CLASSES=OPEN, ENDPOINTS={"another": {"BASE_URL": server.url}})
        yield server


def test_a_site_may_ask_another_server(
    site: Site, fake_ollama: FakeOllama, another: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatView, "get_using", lambda *_: "another")
    assert source(site) == "ollama"
    assert (len(another.chats), len(fake_ollama.chats)) == (1, 0)
