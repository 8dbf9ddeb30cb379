"""From the settings of endpoints to those that calls go to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .core.breaker import BreakerPolicy
from .core.retry import RetryPolicy
from .core.types import Endpoint, Price, QuotaPolicy

if TYPE_CHECKING:
    from .conf import Settings
    from .tables import EndpointSettings, ServerSettings

_CLOUD: Final = "ollama.com"


def endpoints_of(settings: Settings) -> dict[str, Endpoint]:
    """Return all endpoints by name, in the order of the settings."""
    cloud = settings.CLOUD_ENDPOINT
    return {name: endpoint_of(name, each, cloud) for name, each in settings.ENDPOINTS.items()}


def endpoint_of(name: str, settings: EndpointSettings, cloud: str) -> Endpoint:
    """Return an endpoint; ``cloud`` is the URL of one that is the cloud wherever it may be."""
    endpoint = Endpoint(
        name=name,
        base_url=settings.BASE_URL,
        model=settings.MODEL,
        api_key=settings.API_KEY,
        headers=settings.HEADERS,
        proxy=settings.PROXY,
        verify=settings.VERIFY_SSL,
        timeout=settings.TIMEOUT,
        first_token_timeout=settings.FIRST_TOKEN_TIMEOUT,
        chunk_timeout=settings.CHUNK_TIMEOUT,
        connect_timeout=settings.CONNECT_TIMEOUT,
        max_response_bytes=settings.MAX_RESPONSE_BYTES,
        pool_maxsize=settings.POOL_MAXSIZE,
        max_concurrency=settings.MAX_CONCURRENCY,
        max_waiting=settings.MAX_WAITING,
        retry=retry_policy(settings),
        breaker=breaker_policy(settings),
        weight=settings.WEIGHT,
        models=settings.MODELS,
        is_cloud=is_cloud(settings.BASE_URL, cloud),
        cooldown_seconds=settings.COOLDOWN_SECONDS,
        quota=QuotaPolicy(limit=settings.QUOTA_LIMIT, warning=settings.QUOTA_WARNING_THRESHOLD),
    )
    prices = {endpoint.name_of(model): Price(**it) for model, it in settings.PRICES.items()}
    return replace(endpoint, prices=prices)


def is_cloud(url: str, cloud: str) -> bool:
    """Tell whether an endpoint is Ollama's cloud, or what stands in for it."""
    host = urlsplit(url).hostname or ""
    return url == cloud or host == _CLOUD or host.endswith(f".{_CLOUD}")


def retry_policy(settings: ServerSettings) -> RetryPolicy:
    return RetryPolicy(
        max_retries=settings.MAX_RETRIES,
        retries_before_failover=settings.RETRIES_BEFORE_FAILOVER,
        backoff=settings.RETRY_BACKOFF,
        initial_delay=settings.RETRY_INITIAL_DELAY,
        factor=settings.RETRY_BACKOFF_FACTOR,
        max_delay=settings.RETRY_MAX_DELAY,
        jitter=settings.RETRY_JITTER,
        fixed_delay=settings.RETRY_DELAY,
        statuses=settings.RETRY_STATUSES,
    )


def breaker_policy(settings: ServerSettings) -> BreakerPolicy:
    return BreakerPolicy(
        enabled=settings.CIRCUIT_BREAKER,
        failure_threshold=settings.FAILURE_THRESHOLD,
        open_seconds=settings.OPEN_SECONDS,
        recovery_timeout=settings.RECOVERY_TIMEOUT,
    )
