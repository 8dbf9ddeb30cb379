"""How often one may ask; ``THROTTLE_RATE`` is read anew for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient
from rest_framework.throttling import SimpleRateThrottle

Ask = Callable[..., Any]
Configure = Callable[..., None]

OPEN = ["rest_framework.permissions.AllowAny"]
CACHE_DOWN = {"default": {"BACKEND": f"{__name__}.DownCache"}}


class DownCache:
    """A cache whose server is gone."""

    def __init__(self, *_: object) -> None:
        pass

    def get(self, *_: object) -> None:
        raise ConnectionRefusedError("the cache is gone")

    def clear(self) -> None:
        pass

    def close(self) -> None:
        pass


def _post(client: APIClient, address: str = "10.0.0.1", **headers: str) -> int:
    response = client.post(
        "/api/chat/", {"message": "Hi"}, format="json", REMOTE_ADDR=address, headers=headers
    )
    status: int = response.status_code
    return status


def test_too_many_calls_are_refused_with_the_time_to_wait(ask: Ask, configure: Configure) -> None:
    configure(THROTTLE_RATE="2/min")
    assert [ask().status_code for _ in range(2)] == [200, 200]
    response = ask()
    assert response.status_code == 429
    body = response.json()
    assert body.pop("request_id")
    wait = body.pop("retry_after")
    assert 1 <= wait <= 60
    assert response.headers["Retry-After"] == str(wait)
    assert body == {
        "success": False,
        "error": "You are sending too many requests. Please wait a moment.",
        "code": "throttled",
    }


def test_calls_pass_again_after_their_time(
    ask: Ask, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(SimpleRateThrottle, "timer", lambda _self: now[0])
    configure(THROTTLE_RATE="1/min")
    assert ask().status_code == 200
    now[0] += 59
    assert ask().json()["retry_after"] == 1
    now[0] += 1
    assert ask().status_code == 200


def test_each_user_is_counted_apart(member: APIClient, configure: Configure) -> None:
    configure(THROTTLE_RATE="1/min")
    other = APIClient()
    other.force_authenticate(User(pk=70))
    assert [_post(member), _post(member), _post(other)] == [200, 429, 200]


def test_a_user_is_the_same_from_every_address(member: APIClient, configure: Configure) -> None:
    configure(THROTTLE_RATE="1/min")
    assert [_post(member, "10.0.0.1"), _post(member, "10.0.0.2")] == [200, 429]


class TestTheUnknown:
    @pytest.fixture(autouse=True)
    def _open(self, configure: Configure) -> None:
        configure(THROTTLE_RATE="1/min", PERMISSION_CLASSES=OPEN)

    def test_are_counted_by_address(self, anonymous: APIClient) -> None:
        assert _post(anonymous, "10.0.0.1") == 200
        assert _post(anonymous, "10.0.0.1") == 429
        assert _post(anonymous, "10.0.0.2") == 200

    def test_get_no_more_calls_by_inventing_addresses(self, anonymous: APIClient) -> None:
        assert _post(anonymous, **{"X-Forwarded-For": "1.1.1.1"}) == 200
        assert _post(anonymous, **{"X-Forwarded-For": "2.2.2.2"}) == 429

    def test_are_told_apart_behind_a_known_proxy(self, anonymous: APIClient, settings: Any) -> None:
        settings.REST_FRAMEWORK = {"NUM_PROXIES": 1}
        assert _post(anonymous, **{"X-Forwarded-For": "x, 1.1.1.1"}) == 200
        assert _post(anonymous, **{"X-Forwarded-For": "y, 1.1.1.1"}) == 429
        assert _post(anonymous, **{"X-Forwarded-For": f"y, no address {'a' * 300}"}) == 200


def test_the_rate_is_live_and_can_be_switched_off(ask: Ask, configure: Configure) -> None:
    configure(THROTTLE_RATE="1/min")
    assert [ask().status_code for _ in range(2)] == [200, 429]
    configure(THROTTLE_RATE=None)
    assert [ask().status_code for _ in range(3)] == [200, 200, 200]


def test_health_is_not_counted(anonymous: APIClient, configure: Configure) -> None:
    configure(THROTTLE_RATE="1/min")
    assert [anonymous.get("/api/health/").status_code for _ in range(3)] == [200] * 3


def test_a_cache_that_is_down_stops_nobody(
    ask: Ask, configure: Configure, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    configure(THROTTLE_RATE="1/min")
    settings.CACHES = CACHE_DOWN
    assert [ask().status_code for _ in range(2)] == [200, 200]
    assert "Check CACHES" in caplog.text
