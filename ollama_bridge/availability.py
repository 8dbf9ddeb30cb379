"""Is there an Ollama server? Asked without settings and without a client."""

from __future__ import annotations

from .core.breaker import BreakerPolicy
from .core.deadline import Clock
from .core.health import is_there
from .core.retry import RetryPolicy
from .core.types import Endpoint
from .hosts import Url
from .rules import Number, cleaned

_LONGEST_REPLY = 65_536


def check_availability(url: str, timeout: float = 2) -> bool:
    """Tell whether an Ollama server answers at ``url`` within ``timeout`` seconds.

    Raises:
        ValueError: this is no URL of a server, or no time.
    """
    # Both load requests, which takes a while: not before somebody asks.
    from .transports.blocking import Conversation, drive, finish  # noqa: PLC0415
    from .transports.pool import BlockingTransport  # noqa: PLC0415

    transport = BlockingTransport(1)
    try:
        steps = is_there(_endpoint(url, timeout), Clock())
        return finish(drive(steps, Conversation(transport)))
    finally:
        transport.close()


def _endpoint(url: str, timeout: float) -> Endpoint:
    seconds = cleaned("timeout", Number(above=0), timeout)
    base_url = cleaned("url", Url("http://127.0.0.1:11434"), url)
    return Endpoint(
        name="asked",
        base_url=base_url,
        model="",
        timeout=seconds,
        chunk_timeout=seconds,
        connect_timeout=seconds,
        max_response_bytes=_LONGEST_REPLY,
        pool_maxsize=1,
        retry=RetryPolicy(max_retries=0),
        breaker=BreakerPolicy(enabled=False),
    )
