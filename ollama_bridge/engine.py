"""From settings to the working parts of a client. Loads requests, so it is imported when needed."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, TypeVar

from .core import flow, health
from .core.breaker import BreakerPolicy
from .core.deadline import Clock
from .core.retry import RetryPolicy
from .core.routing import Router
from .core.stats import Stats
from .core.types import Endpoint
from .errors import OllamaBridgeError, without_frames
from .health import HealthKeeper
from .logs import log
from .state.local import LocalHome
from .transports.blocking import Conversation, drive, finish
from .transports.pool import BlockingTransport

if TYPE_CHECKING:
    from .conf import Settings
    from .core.actions import Flow
    from .core.events import Event
    from .core.flow import Call, Exchange
    from .core.health import HealthReport
    from .core.types import ChatReply

T = TypeVar("T")
logger = logging.getLogger("ollama_bridge.client")


class Engine:
    """The parts that one configuration needs: router, transport, health report. Opens nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stats = Stats()
        self.router = Router(
            [default_endpoint(settings)],
            clock=Clock(),
            random=random.random,
            observe=self._observe,
            home=LocalHome(),
        )
        self.transport = BlockingTransport(settings.POOL_CONNECTIONS)
        self.health = HealthKeeper(self.router, self._probe, settings.HEALTH_CACHE_SECONDS)

    def announce(self) -> None:
        """Log that calls begin. Not under the client's lock: who formats the line may ask it."""
        target = self.router.default
        logger.info(
            "OllamaClient initialized: %s, model: %s",
            target.endpoint.base_url,
            target.model,
            extra={
                "endpoint": target.endpoint.name,
                "model": target.model,
                "code": "",
                "request_id": "",
            },
        )

    def answer(self, call: Call, exchange: Exchange) -> ChatReply:
        """Perform a call that emits nothing, in this thread."""
        try:
            return self._run(flow.answer(self.router, call, exchange))
        except OllamaBridgeError as error:
            raise without_frames(error) from error.__cause__

    def stats(self) -> dict[str, Any]:
        return self._stats.to_dict(self.router.load())

    def close(self) -> None:
        self.transport.close()

    def after_fork(self) -> None:
        self._stats.after_fork()
        self.router.after_fork()
        self.transport.after_fork()
        self.health.after_fork()

    def _observe(self, event: Event) -> None:
        self._stats.note(event)
        log(event)

    def _probe(self) -> HealthReport:
        return self._run(health.check(self.router))

    def _run(self, steps: Flow[T]) -> T:
        return finish(drive(steps, Conversation(self.transport, self.router.home)))


def default_endpoint(settings: Settings) -> Endpoint:
    """Return the one endpoint that the top level of the settings describes."""
    return Endpoint(
        name="default",
        base_url=settings.BASE_URL,
        model=settings.MODEL,
        api_key=settings.API_KEY,
        headers=settings.HEADERS,
        proxy=settings.PROXY,
        verify=settings.VERIFY_SSL,
        timeout=settings.TIMEOUT,
        connect_timeout=settings.CONNECT_TIMEOUT,
        max_response_bytes=settings.MAX_RESPONSE_BYTES,
        pool_maxsize=settings.POOL_MAXSIZE,
        max_concurrency=settings.MAX_CONCURRENCY,
        max_waiting=settings.MAX_WAITING,
        retry=retry_policy(settings),
        breaker=BreakerPolicy(
            enabled=settings.CIRCUIT_BREAKER,
            failure_threshold=settings.FAILURE_THRESHOLD,
            open_seconds=settings.OPEN_SECONDS,
            recovery_timeout=settings.RECOVERY_TIMEOUT,
        ),
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        max_retries=settings.MAX_RETRIES,
        backoff=settings.RETRY_BACKOFF,
        initial_delay=settings.RETRY_INITIAL_DELAY,
        factor=settings.RETRY_BACKOFF_FACTOR,
        max_delay=settings.RETRY_MAX_DELAY,
        jitter=settings.RETRY_JITTER,
        fixed_delay=settings.RETRY_DELAY,
        statuses=settings.RETRY_STATUSES,
    )
