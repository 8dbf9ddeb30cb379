"""The sentences of the page, one by one."""

from __future__ import annotations

import pytest

from ollama_bridge.admin import wording
from ollama_bridge.core.breaker import State
from ollama_bridge.core.health import EndpointHealth
from ollama_bridge.core.quota import Quota


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (118.5, "119 s"),
        (119.5, "2 min"),
        (7199, "120 min"),
        (7201, "3 h"),
        (47 * 3600, "47 h"),
        (6.2 * 86_400, "7 days"),
    ],
)
def test_a_wait_is_told_as_people_do_and_never_too_short(seconds: float, text: str) -> None:
    assert wording.span(seconds) == text


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (
            Quota("balance", 0.82, 5000.0, "session"),
            "82 % of the session allowance used, says /api/balance",
        ),
        (
            Quota("balance", 0.5, limit=20.0, unit="USD", bought=5.0),
            (
                "50 % of the allowance used, 10.00 of 20.00 USD, 5.00 USD bought besides, "
                "says /api/balance"
            ),
        ),
        (
            Quota("headers", 1.0, limit=500.0, unit="requests"),
            "100 % of the allowance used, 500 of 500 requests, says the server",
        ),
        (
            Quota("counted", 0.3, limit=10, unit="requests"),
            "30 % of the allowance used, 3 of 10 requests, by our own count of answered calls",
        ),
    ],
)
def test_an_allowance_is_told_with_who_says_so(quota: Quota, text: str) -> None:
    assert wording.used(quota) == text


@pytest.mark.parametrize(
    ("is_cloud", "models", "text"),
    [
        (False, {"m": True}, ""),
        (False, {"m": True, "a": None}, ""),
        (False, {"m": True, "a": False, "b": False}, " Run there: ollama pull a b"),
        (
            True,
            {"m": True, "a": False, "b": False},
            " Not there: a b. See https://ollama.com/search?c=cloud",
        ),
    ],
)
def test_a_missing_model_is_pulled_but_for_the_cloud_where_nobody_can(
    is_cloud: bool, models: dict[str, bool | None], text: str
) -> None:
    health = EndpointHealth(
        status="degraded",
        endpoint="gpu",
        url="http://gpu.test:11434",
        model="m",
        reachable=True,
        circuit=State.CLOSED,
        latency=0.02,
        version="0.24.0",
        models=models,
        is_cloud=is_cloud,
    )
    assert wording.found(health) == (
        f"Endpoint gpu is degraded. The server answered in 20 ms: version 0.24.0, m not loaded yet."
        f"{text}"
    )
