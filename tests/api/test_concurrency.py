"""How many calls of one user may be under way: ``MAX_CALLS_PER_USER``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from ollama_bridge.api.concurrency import CallsByUser
from ollama_bridge.api.errors import TooManyCalls
from ollama_bridge.testing import FakeOllama
from tests.net.held import Held

Configure = Callable[..., None]

OPEN = ["rest_framework.permissions.AllowAny"]


@pytest.fixture
def held(fake_ollama: FakeOllama) -> Held:
    held = Held()
    fake_ollama.misbehave(held)
    return held


@pytest.fixture
def pool(held: Held) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool
        held.let_go()


def user(number: int) -> APIClient:
    client = APIClient()
    client.force_authenticate(User(pk=number))
    return client


def post(client: APIClient, address: str = "10.0.0.1", **fields: object) -> Any:
    body = {"message": "Hi", **fields}
    return client.post("/api/chat/", body, format="json", REMOTE_ADDR=address)


@pytest.fixture
def under_way(
    held: Held, fake_ollama: FakeOllama, pool: ThreadPoolExecutor
) -> Callable[..., list[Future[Any]]]:
    """Begin so many calls, and return when the server has them all."""

    def begin(client: APIClient, number: int = 3) -> list[Future[Any]]:
        before = fake_ollama.in_flight
        calls = [pool.submit(post, client) for _ in range(number)]
        fake_ollama.wait_for(lambda server: server.in_flight == before + number)
        return calls

    return begin


def test_a_fourth_call_of_one_user_is_refused_while_three_are_answered(
    configure: Configure, held: Held, under_way: Callable[..., list[Future[Any]]]
) -> None:
    calls = under_way(user(7))
    refused = post(user(7))
    body = refused.json()
    assert refused.status_code == 429
    assert (body["success"], body["code"]) == (False, "throttled")
    assert body["error"].startswith("Your earlier questions are still being answered.")
    assert refused.headers["Retry-After"] == str(body["retry_after"])
    held.let_go()
    assert [call.result().status_code for call in calls] == [200, 200, 200]
    assert post(user(7)).status_code == 200


def test_others_are_not_held_up(
    configure: Configure, held: Held, under_way: Callable[..., list[Future[Any]]]
) -> None:
    under_way(user(7))
    others = under_way(user(8))
    held.let_go()
    assert [call.result().status_code for call in others] == [200, 200, 200]


def test_the_unknown_are_counted_by_address(
    configure: Configure, held: Held, under_way: Callable[..., list[Future[Any]]]
) -> None:
    configure(MAX_CALLS_PER_USER=1, PERMISSION_CLASSES=OPEN)
    under_way(APIClient(), 1)
    assert post(APIClient()).status_code == 429
    held.let_go()
    assert post(APIClient(), "10.0.0.2").status_code == 200


def test_the_limit_is_live_and_can_be_switched_off(
    configure: Configure, held: Held, under_way: Callable[..., list[Future[Any]]]
) -> None:
    configure(MAX_CALLS_PER_USER=1)
    under_way(user(7), 1)
    assert post(user(7)).status_code == 429
    configure(MAX_CALLS_PER_USER=None)
    assert len(under_way(user(7), 5)) == 5


def test_a_wrong_request_takes_no_place(
    configure: Configure, held: Held, under_way: Callable[..., list[Future[Any]]]
) -> None:
    under_way(user(7))
    assert post(user(7), message="").status_code == 400


def test_a_call_that_fails_gives_its_place_back(
    configure: Configure, fake_ollama: FakeOllama
) -> None:
    configure(MAX_CALLS_PER_USER=1, MAX_RETRIES=0)
    fake_ollama.refuse()
    assert [post(user(7)).status_code for _ in range(3)] == [503, 503, 503]


class TestTheTimeToWait:
    @pytest.mark.parametrize(("usual", "wait"), [(10.0, 6), (1.0, 0)])
    def test_is_that_of_calls_of_late_less_the_age_of_the_oldest(
        self, usual: float, wait: int
    ) -> None:
        now = [0.0]
        calls = CallsByUser(lambda: now[0])
        with calls.one("ada", 1):
            now[0] += usual
        with calls.one("ada", 1):
            now[0] += 4.0
            with pytest.raises(TooManyCalls) as told, calls.one("ada", 1):
                pass
        assert told.value.wait == wait

    def test_is_not_known_before_any_call_has_ended(self) -> None:
        calls = CallsByUser()
        with calls.one("ada", 1), pytest.raises(TooManyCalls) as told, calls.one("ada", 1):
            pass
        assert told.value.wait is None

    def test_and_the_count_of_a_forked_child_begin_anew(self) -> None:
        calls = CallsByUser()
        with calls.one("ada", 1):
            calls._lock.acquire()
            calls.after_fork()
            with calls.one("ada", 1):
                pass
        assert calls._began == {}

    def test_leaves_nothing_behind(self) -> None:
        calls = CallsByUser()
        with calls.one("ada", 2), calls.one("ada", 2), calls.one("grace", None):
            pass
        assert calls._began == {}
