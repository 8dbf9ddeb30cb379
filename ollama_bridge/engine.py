"""From settings to the working parts of a client. Loads requests, so it is imported when needed."""

from __future__ import annotations

import logging
import random
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .core import exchanges, flow
from .core.answers import Answers, remembered
from .core.deadline import Clock
from .core.router import Router
from .core.sharing import heard
from .core.stats import Stats
from .errors import OllamaBridgeError, without_frames
from .health import HealthKeeper
from .logs import log
from .plans import plan_for
from .scouts import Scouts
from .state.answers import AnswerShelf
from .state.exchange import Exchange
from .state.local import LocalHome
from .state.shared import SharedHome
from .transports.aio import AsyncConversation, AsyncRun, run
from .transports.blocking import Conversation, drive, finish
from .transports.pool import BlockingTransport
from .transports.tls import TlsContexts

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from .conf import Settings
    from .core.actions import Flow
    from .core.events import Event, Observer
    from .core.health import HealthReport
    from .core.trip import Call
    from .core.types import ChatReply, Delta
    from .state.answers import Store as AnswerStore
    from .state.exchange import Store
    from .transports.aiopool import AsyncTransport

logger = logging.getLogger("ollama_bridge.client")


class Engine:
    """The parts that one configuration needs: router, transport, health report. Opens nothing."""

    def __init__(
        self, settings: Settings, store: Store | None = None, answers: AnswerStore | None = None
    ) -> None:
        self.settings = settings
        self.listeners: list[Observer] = []  # in whatever thread it happens; they only take note
        self._stats = Stats()
        clock = Clock()
        self._store = store
        self._home = SharedHome(settings.SYNC_INTERVAL, clock.monotonic) if store else None
        self.router = Router(
            plan_for(settings),
            clock=clock,
            random=random.random,
            observe=self._observe,
            home=self._home or LocalHome(),
        )
        self._answers: Answers | None = None
        if answers is not None:
            shelf = AnswerShelf(answers, clock.monotonic, self.router.sharing.call)
            self._answers = Answers(self.router, shelf)
        self._tls = TlsContexts()
        self.transport = BlockingTransport(settings.POOL_CONNECTIONS, self._tls)
        self.async_transport: AsyncTransport | None = None
        self._health = HealthKeeper(self.router, settings.HEALTH_CACHE_SECONDS)
        self._scouts = Scouts(self.router, self._tls)

    def join(self) -> None:
        """Begin to hear what other processes know of the circuits, where they are shared."""
        if self._home is not None and self._store is not None:
            sharing, store = self.router.sharing, self._store
            accounts = {each.name: each.identity for each in self.router.plan.endpoints}
            exchange = Exchange(sharing, store, sender=uuid4().hex, addresses=accounts)
            self._home.join(sharing, exchange, store.hang_up)

    def wait(self, seconds: float) -> None:
        """Wait until that is known, but not longer than this."""
        if self._home is not None:
            self._home.wait(seconds)

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

    def load_async(self) -> None:
        """Make async calls possible. Loads aiohttp, which takes a while: not on a loop.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        transport = import_module(".transports.aiopool", __package__).AsyncTransport(self._tls)
        with self.router.lock:
            self.async_transport = self.async_transport or transport

    def answer(self, call: Call, conversation: Conversation | None = None) -> ChatReply:
        """Answer a call in this thread; whoever has the conversation may cancel it."""
        steps = self._begin(call, exchanges.whole)
        try:
            return finish(drive(steps, conversation or self.conversation()))
        except OllamaBridgeError as error:
            raise without_frames(error) from error.__cause__

    async def aanswer(self, call: Call) -> ChatReply:
        """Answer a call on this loop."""
        steps = self._begin(call, exchanges.whole)
        try:
            return await run(steps, self._async_conversation())
        except OllamaBridgeError as error:
            raise without_frames(error) from error.__cause__

    def stream(self, call: Call, conversation: Conversation) -> Generator[Delta, None, ChatReply]:
        """Answer a call piece by piece, in the thread that asks for them."""
        return drive(self._begin(call, exchanges.streamed), conversation)

    def astream(self, call: Call) -> AsyncRun[ChatReply]:
        """Answer a call piece by piece, on this loop."""
        return AsyncRun(self._begin(call, exchanges.streamed), self._async_conversation())

    def report(self, *, force: bool) -> HealthReport:
        return finish(drive(self._health.report(force=force), self.conversation()))

    async def areport(self, *, force: bool) -> HealthReport:
        return await run(self._health.report(force=force), self._async_conversation())

    def hear(self) -> None:
        """Take over what other processes know by now; that takes 50 ms at most."""
        finish(drive(heard(self.router), self.conversation()))

    def conversation(self) -> Conversation:
        return Conversation(self.transport)

    def ask_accounts(self, only: str | None = None) -> Mapping[str, OllamaBridgeError | None]:
        """Ask now what is left of each account; by endpoint why one does not tell, else None."""
        return self._scouts.ask_accounts(only)

    def stats(self) -> dict[str, Any]:
        self._tidy()
        return self._stats.to_dict(self.router.load())

    def close(self) -> None:
        self._scouts.leave()
        if self._home is not None:
            self._home.leave()
        if self._answers is not None:
            self._answers.leave()
        self.transport.close()
        if self.async_transport is not None:
            self.async_transport.close()

    async def aclose(self) -> None:
        self.transport.close()
        if self.async_transport is not None:
            await self.async_transport.aclose()

    def after_fork(self) -> None:
        self._stats.after_fork()
        self.router.after_fork()
        self._tls.after_fork()
        self.transport.after_fork()
        if self.async_transport is not None:
            self.async_transport.after_fork()
        self._health.after_fork()
        self._scouts.after_fork()
        if self._home is not None:
            self._home.after_fork()
        if self._answers is not None:
            self._answers.after_fork()

    def _begin(self, call: Call, exchange: flow.Exchange) -> Flow[ChatReply]:
        self._tidy()
        if call.caching is not None and self._answers is not None:
            return remembered(self.router, call, call.caching, exchange, self._answers)
        return flow.answer(self.router, call, exchange)

    def _tidy(self) -> None:
        """Free the slots that calls on closed loops still hold."""
        if self.async_transport is not None:
            self.async_transport.tidy()

    def _observe(self, event: Event) -> None:
        self._stats.note(event)
        log(event)
        self._scouts.note(event)
        for listener in self.listeners:
            listener(event)

    def _async_conversation(self) -> AsyncConversation:
        if self.async_transport is None:
            raise TypeError("load_async() comes first")
        return AsyncConversation(self.async_transport)
