"""From the settings of endpoints to those that calls go to."""

import pytest

from ollama_bridge.conf import EndpointSettings, Settings
from ollama_bridge.core.breaker import BreakerPolicy
from ollama_bridge.core.retry import RetryPolicy
from ollama_bridge.core.types import Price, QuotaPolicy
from ollama_bridge.endpoints import endpoint_of, endpoints_of, is_cloud
from ollama_bridge.plans import plan_for

OLLAMA_COM = "https://ollama.com"


def test_every_setting_of_an_endpoint_arrives() -> None:
    settings = EndpointSettings(
        BASE_URL="https://gpu",
        MODEL="qwen3",
        API_KEY="key",
        VERIFY_SSL=False,
        HEADERS={"X-Tenant": "school"},
        PROXY="http://proxy",
        TIMEOUT=1,
        CONNECT_TIMEOUT=2,
        FIRST_TOKEN_TIMEOUT=3,
        CHUNK_TIMEOUT=4,
        MAX_RESPONSE_BYTES=5,
        POOL_MAXSIZE=6,
        MAX_CONCURRENCY=7,
        MAX_WAITING=8,
        MAX_RETRIES=9,
        RETRIES_BEFORE_FAILOVER=10,
        RETRY_BACKOFF="fixed",
        RETRY_INITIAL_DELAY=11,
        RETRY_BACKOFF_FACTOR=12,
        RETRY_MAX_DELAY=13,
        RETRY_JITTER="none",
        RETRY_DELAY=14,
        RETRY_STATUSES=frozenset({503}),
        CIRCUIT_BREAKER=False,
        FAILURE_THRESHOLD=15,
        OPEN_SECONDS=16,
        RECOVERY_TIMEOUT=17,
        COOLDOWN_SECONDS=18,
        QUOTA_LIMIT=19,
        QUOTA_WARNING_THRESHOLD=0.2,
        WEIGHT=21,
        MODELS={"a": "b"},
        PRICES={"b": {"prompt": 22, "completion": 23}},
    )

    found = endpoint_of("gpu", settings, OLLAMA_COM)

    assert (found.name, found.base_url, found.model, found.api_key, found.verify) == (
        *("gpu", "https://gpu", "qwen3", "key", False),
    )
    assert (found.headers, found.proxy) == ({"X-Tenant": "school"}, "http://proxy")
    assert (found.timeout, found.connect_timeout, found.first_token_timeout) == (1, 2, 3)
    assert (found.chunk_timeout, found.max_response_bytes, found.pool_maxsize) == (4, 5, 6)
    assert (found.max_concurrency, found.max_waiting) == (7, 8)
    assert found.retry == RetryPolicy(
        max_retries=9,
        retries_before_failover=10,
        backoff="fixed",
        initial_delay=11,
        factor=12,
        max_delay=13,
        jitter="none",
        fixed_delay=14,
        statuses=frozenset({503}),
    )
    assert found.breaker == BreakerPolicy(
        enabled=False, failure_threshold=15, open_seconds=16, recovery_timeout=17
    )
    assert (found.cooldown_seconds, found.quota) == (18, QuotaPolicy(limit=19, warning=0.2))
    assert (found.weight, found.models, found.prices) == (21, {"a": "b"}, {"b": Price(22, 23)})
    assert not found.is_cloud


def test_there_is_one_for_each_of_the_settings() -> None:
    settings = Settings.build(
        {"API_KEY": "key", "CLOUD_MODEL": "gpt-oss:120b", "ENDPOINTS": {"local": {"WEIGHT": 2}}}
    )

    found = endpoints_of(settings)

    assert {name: each.name for name, each in found.items()} == {"cloud": "cloud", "local": "local"}
    assert (found["cloud"].is_cloud, found["local"].is_cloud) == (True, False)
    assert (found["cloud"].api_key, found["local"].weight) == ("key", 2.0)


def test_what_stands_in_for_the_cloud_is_the_cloud() -> None:
    settings = Settings.build(
        {"API_KEY": "key", "CLOUD_MODEL": "x", "CLOUD_ENDPOINT": "https://cloud.example.com"}
    )

    assert endpoints_of(settings)["cloud"].is_cloud


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ollama.com", True),
        ("https://OLLAMA.com:443/x", True),
        ("https://eu.ollama.com", True),
        ("http://127.0.0.1:9", True),
        ("http://127.0.0.1:90", False),
        ("https://notollama.com", False),
        ("https://ollama.com.example.com", False),
        ("https://example.com/ollama.com", False),
    ],
)
def test_the_cloud_is_known_by_its_address(url: str, expected: bool) -> None:
    assert is_cloud(url, "http://127.0.0.1:9") is expected


def test_prices_may_be_written_for_our_names_and_for_the_clouds() -> None:
    price = {"prompt": 1.0, "completion": 2.0}
    settings = EndpointSettings(
        BASE_URL=OLLAMA_COM,
        MODELS={"big": "gpt-oss:120b"},
        PRICES={"big": price, "qwen3-coder:480b-cloud": price, "glm-4.6": price},
    )

    found = endpoint_of("cloud", settings, OLLAMA_COM)

    assert sorted(found.prices) == ["glm-4.6", "gpt-oss:120b", "qwen3-coder:480b"]
    assert found.price_of(found.name_of("big")) == 3.0


def test_two_ways_to_write_a_target_are_one() -> None:
    settings = Settings.build(
        {
            "ENDPOINTS": {
                "cloud": {
                    "BASE_URL": "https://ollama.com",
                    "API_KEY": "key",
                    "MODELS": {"big": "gpt-oss:120b"},
                }
            },
            "ROUTES": {
                "default": {
                    "TARGETS": ["cloud/gpt-oss:120b", "cloud/gpt-oss:120b-cloud", "cloud/big"]
                }
            },
        }
    )
    assert [each.name for each in plan_for(settings).default.targets] == ["cloud/gpt-oss:120b"]
