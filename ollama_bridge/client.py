"""The client: one object for a process, used as ``from ollama_bridge import ollama_client``."""

from __future__ import annotations

import asyncio
import atexit
import difflib
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, Unpack

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.views.decorators.debug import sensitive_variables

from . import conf
from .asking import ChatArguments, call_of, calls_of, most_at_once, stream_of
from .batches import aanswer_many, answer_many
from .caches import answer_store_of, store_of
from .circuits import (
    CircuitBreaker,
    EndpointFacts,
    Governed,
    RouteFacts,
    breaker_of,
    breakers_of,
    endpoints_of,
    routes_of,
)
from .streams import AsyncChatStream, ChatStream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from .core.health import HealthReport
    from .core.router import Router
    from .core.types import ChatReply
    from .engine import Engine
    from .errors import OllamaBridgeError
    from .transports.aio import AsyncRun

# A key is for its own server, and headers may hold one; endpoints and routes lead to others.
_OF_OTHER_SERVERS: Mapping[str, object] = {
    "API_KEY": None,
    "HEADERS": {},
    "ENDPOINTS": {},
    "ROUTES": {},
    "CLOUD_MODEL": None,
}

_FIRST = 0.5  # the most seconds that a first call waits for what other processes know

# Of a coroutine Django's decorator hides the frame alone, not those of what it calls.
_hidden_call_of = sensitive_variables()(call_of)
_hidden_calls_of = sensitive_variables()(calls_of)

_clients: weakref.WeakSet[OllamaClient] = weakref.WeakSet()


class Governing(Protocol):
    """What moves the circuits of one engine besides its calls. Its methods never raise."""

    def look(self, changed: str = "") -> None:
        """Take over what operators wish now; ``changed`` names an endpoint whose mode is new."""

    def end(self) -> None:
        """Move nothing any more; what it knows stays for its successor."""


Governor: TypeAlias = Callable[[Governed, Governing | None], Governing]
"""Begins to govern these endpoints; the second argument is what did so until now, if anything."""


def _not_from_settings(given: Mapping[str, object]) -> Mapping[str, object]:
    """Return what a client that is given these does not take from the settings."""
    if "BASE_URL" in given:
        return _OF_OTHER_SERVERS
    # Routes of the settings lead to their endpoints, and their key may be for their cloud.
    instead: dict[str, object] = {}
    if "ENDPOINTS" in given:
        instead |= {"API_KEY": None, "ROUTES": {}, "CLOUD_MODEL": None}
    if "CLOUD_MODEL" in given or "CLOUD_ENDPOINT" in given:
        instead |= {"API_KEY": None}
    return instead


class OllamaClient:
    """Chats with the Ollama servers that the settings name. Thread-safe, fork-safe, lazy.

    Usually you want ``ollama_client``, the one of the process. A client made by hand takes the
    names of the settings in lower case, and the settings for what it is not given; but with a
    ``base_url`` of its own it takes no ``API_KEY``, no ``HEADERS`` and no other servers from them,
    with ``endpoints`` no ``API_KEY`` and no routes, and with a ``cloud_endpoint`` or
    ``cloud_model`` no ``API_KEY``::

        with OllamaClient(base_url="http://10.0.0.5:11434", max_retries=0) as client:
            client.chat("What is water?")

    Nothing is opened before the first call. A change of settings (in tests, say) takes effect at
    the next call, which begins with closed circuits.

    Raises:
        TypeError: an argument is not the name of a setting.
        ImproperlyConfigured: at the first call, a setting is wrong.
    """

    # Given by the app to the client of the process, and to no other.
    _governor: Governor | None = None

    def __init__(self, **overrides: object) -> None:
        given = {_setting(name): value for name, value in overrides.items()}
        self._overrides = {**_not_from_settings(given), **given}
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._inherited: Engine | None = None  # a parent's, in a forked child before its first call
        self._governing: Governing | None = None
        self._running_since: datetime | None = None
        _clients.add(self)

    def __repr__(self) -> str:
        engine = self._engine or self._inherited
        state = "idle" if engine is None else engine.router.default.name
        return f"<OllamaClient {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @sensitive_variables()
    def chat(
        self,
        message: str,
        system_prompt: str | None = None,
        *,
        history: Iterable[Mapping[str, str]] = (),
        model: str | Sequence[str] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        options: Mapping[str, object] | None = None,
        timeout: float | None = None,
        keep_alive: str | float | None = None,
        using: str | None = None,
        sticky_key: str | None = None,
        cache_ttl: float | None = None,
        cache_scope: str | None = None,
    ) -> ChatReply:
        """Ask a model, and return its whole answer.

        Args:
            message: what the user says.
            system_prompt: how the model shall behave; None for the setting, "" for none at all.
            history: what was said before, as ``{"role": …, "content": …}``, oldest first.
            model: another model than the setting names, or several that are tried in order.
            temperature: how freely the model chooses, from 0.
            max_tokens: the longest answer, in tokens (Ollama's option ``num_predict``).
            options: further options of the model, over those of the settings.
            timeout: seconds for everything together: waits, retries and the answer.
            keep_alive: how long the model stays loaded, in seconds or as "5m".
            using: the route or the endpoint to ask, by its name in the settings; None for the
                route ``default``, else the endpoint ``default``.
            sticky_key: whose call it is: where a route draws lots, the same key always draws the
                same target. Any text, such as ``str(user.pk)``; it is not sent.
            cache_ttl: seconds for which the answer may serve other calls that ask the same; they
                share one request while it is under way, too. It costs no tokens then, and
                ``reply.source`` is "cache". Only whole answers are kept: no failures, nothing that
                was cut, no tool calls. None keeps nothing, and asks in any case.
            cache_scope: who else may have that answer; there is no ``cache_ttl`` without. Calls
                with another scope never get it: ``f"user:{user.pk}"``, or "shared" for everybody.

        Raises:
            OllamaBridgeError: there is no answer; the class says whose fault it is.
            TypeError, ValueError: an argument is wrong.
            ImproperlyConfigured: a setting is wrong.
        """
        engine = self._running()
        call = call_of(
            engine.settings,
            message,
            system_prompt,
            history=history,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout=timeout,
            keep_alive=keep_alive,
            using=using,
            sticky_key=sticky_key,
            cache_ttl=cache_ttl,
            cache_scope=cache_scope,
        )
        return engine.answer(call)

    @sensitive_variables()
    async def achat(
        self,
        message: str,
        system_prompt: str | None = None,
        *,
        history: Iterable[Mapping[str, str]] = (),
        model: str | Sequence[str] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        options: Mapping[str, object] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it bounds more than a cancel would
        keep_alive: str | float | None = None,
        using: str | None = None,
        sticky_key: str | None = None,
        cache_ttl: float | None = None,
        cache_scope: str | None = None,
    ) -> ChatReply:
        """Do as ``chat`` does, without a thread: on any event loop, and cancellable at any await.

        Raises:
            ImproperlyConfigured: aiohttp is not installed.
        """
        engine = await self._arunning()
        call = _hidden_call_of(
            engine.settings,
            message,
            system_prompt,
            history=history,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout=timeout,
            keep_alive=keep_alive,
            using=using,
            sticky_key=sticky_key,
            cache_ttl=cache_ttl,
            cache_scope=cache_scope,
        )
        return await engine.aanswer(call)

    @sensitive_variables()
    def stream(
        self,
        message: str,
        system_prompt: str | None = None,
        *,
        history: Iterable[Mapping[str, str]] = (),
        model: str | Sequence[str] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        options: Mapping[str, object] | None = None,
        timeout: float | None = None,
        first_token_timeout: float | None = None,
        chunk_timeout: float | None = None,
        max_chunks: int | None = None,
        max_bytes: int | None = None,
        keep_alive: str | float | None = None,
        using: str | None = None,
        sticky_key: str | None = None,
        cache_ttl: float | None = None,
        cache_scope: str | None = None,
    ) -> ChatStream:
        """Ask a model, and return its answer piece by piece, as it is made.

        ::

            with ollama_client.stream("What is water?") as chunks:
                for chunk in chunks:
                    print(chunk, end="", flush=True)
            chunks.reply.usage

        Nothing is sent before the first piece is asked for. Retries end with the first piece.

        Args:
            message: as for ``chat``.
            system_prompt: as for ``chat``.
            history: as for ``chat``.
            model: as for ``chat``.
            temperature: as for ``chat``.
            max_tokens: as for ``chat``.
            options: as for ``chat``.
            keep_alive: as for ``chat``.
            using: as for ``chat``.
            sticky_key: as for ``chat``.
            cache_ttl: as for ``chat``; an answer that is there already comes as one piece.
            cache_scope: as for ``chat``.
            timeout: seconds for the whole stream; without it, only its beginning and its silences
                are limited.
            first_token_timeout: seconds up to the first piece, with every wait and retry; None for
                ``FIRST_TOKEN_TIMEOUT``, and without that for ``timeout`` or ``TIMEOUT``.
            chunk_timeout: seconds between two pieces, None for ``CHUNK_TIMEOUT``. What the reader
                takes does not count.
            max_chunks: most pieces, None for ``MAX_CHUNKS``; the rest of the answer is cut off, and
                ``reply.truncated`` says so.
            max_bytes: most bytes of text and thinking, in UTF-8; the same.

        Raises:
            OllamaBridgeError: while reading, there is no more; the class says whose fault it is.
            TypeError, ValueError: at once, an argument is wrong.
            ImproperlyConfigured: at once, a setting is wrong.
        """
        engine = self._running()
        call = stream_of(
            engine.settings,
            message,
            system_prompt,
            history=history,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout=timeout,
            first_token_timeout=first_token_timeout,
            chunk_timeout=chunk_timeout,
            max_chunks=max_chunks,
            max_bytes=max_bytes,
            keep_alive=keep_alive,
            using=using,
            sticky_key=sticky_key,
            cache_ttl=cache_ttl,
            cache_scope=cache_scope,
        )
        return ChatStream(partial(engine.stream, call), engine.conversation())

    @sensitive_variables()
    def astream(
        self,
        message: str,
        system_prompt: str | None = None,
        *,
        history: Iterable[Mapping[str, str]] = (),
        model: str | Sequence[str] | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        options: Mapping[str, object] | None = None,
        timeout: float | None = None,
        first_token_timeout: float | None = None,
        chunk_timeout: float | None = None,
        max_chunks: int | None = None,
        max_bytes: int | None = None,
        keep_alive: str | float | None = None,
        using: str | None = None,
        sticky_key: str | None = None,
        cache_ttl: float | None = None,
        cache_scope: str | None = None,
    ) -> AsyncChatStream:
        """Do as ``stream`` does, without a thread: ``async with``, ``async for``.

        Raises:
            ImproperlyConfigured: at the first piece, aiohttp is not installed.
        """
        call = stream_of(
            self._settings(),
            message,
            system_prompt,
            history=history,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            options=options,
            timeout=timeout,
            first_token_timeout=first_token_timeout,
            chunk_timeout=chunk_timeout,
            max_chunks=max_chunks,
            max_bytes=max_bytes,
            keep_alive=keep_alive,
            using=using,
            sticky_key=sticky_key,
            cache_ttl=cache_ttl,
            cache_scope=cache_scope,
        )

        async def begin() -> AsyncRun[ChatReply]:
            return (await self._arunning()).astream(call)

        return AsyncChatStream(begin)

    @sensitive_variables()
    def chat_many(
        self,
        messages: Iterable[str],
        system_prompt: str | None = None,
        *,
        max_concurrency: int | None = None,
        raise_on_error: bool = False,
        **same: Unpack[ChatArguments],
    ) -> list[ChatReply | OllamaBridgeError]:
        """Ask many questions, some at a time; return the answers in their order.

        Where there is no answer, its error is in its place: ``isinstance(it, OllamaBridgeError)``.
        Batches wait for their turn behind all other calls.

        Args:
            messages: the questions.
            system_prompt: as for ``chat``.
            max_concurrency: how many at a time, None for ``MAX_CONCURRENCY``, else 4.
            raise_on_error: raise the first error instead, and cancel the rest.
            same: what holds for all of them, as for ``chat``; ``timeout`` is that of each.

        Raises:
            OllamaBridgeError: with ``raise_on_error``.
            TypeError, ValueError: an argument is wrong; nothing was sent.
            ImproperlyConfigured: a setting is wrong.
        """
        engine = self._running()
        calls = calls_of(engine.settings, messages, system_prompt, same)
        most = most_at_once(engine.settings, max_concurrency)
        return answer_many(engine, calls, most, raise_on_error=raise_on_error)

    @sensitive_variables()
    async def achat_many(
        self,
        messages: Iterable[str],
        system_prompt: str | None = None,
        *,
        max_concurrency: int | None = None,
        raise_on_error: bool = False,
        **same: Unpack[ChatArguments],
    ) -> list[ChatReply | OllamaBridgeError]:
        """Do as ``chat_many`` does, without threads.

        Raises:
            ImproperlyConfigured: aiohttp is not installed.
        """
        engine = await self._arunning()
        calls = _hidden_calls_of(engine.settings, messages, system_prompt, same)
        most = most_at_once(engine.settings, max_concurrency)
        return await aanswer_many(engine, calls, most, raise_on_error=raise_on_error)

    def health_check(self, force: bool = False) -> HealthReport:
        """Return whether the default endpoint and model can serve; truthy if they can.

        A good report is kept for ``HEALTH_CACHE_SECONDS``, a bad one for 5 s at most; while it is
        renewed others get the old one. ``force`` asks the server in any case. Moves no circuit.
        """
        return self._running().report(force=force)

    async def ahealth_check(self, force: bool = False) -> HealthReport:
        """Do as ``health_check`` does, without a thread."""
        return await (await self._arunning()).areport(force=force)

    def ask_accounts(self, only: str | None = None) -> Mapping[str, OllamaBridgeError | None]:
        """Ask now what is left of each account, or of ``only`` one endpoint's; see ``endpoints``.

        Returns:
            The endpoints that were asked, and why one does not tell, None where it does.
        """
        return self._running().ask_accounts(only)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of this client's calls in this process, under its present settings.

        ``total_requests`` are calls that ended: ``successful_requests`` and ``failed_requests``;
        ``refused_requests`` are those of the failed that were never sent, and ``cached_requests``
        those of the successful that another call's answer served. ``success_rate`` is in
        percent, None before the first. ``failovers`` counts calls that went on elsewhere.
        ``avg_latency_ms``, ``p50_latency_ms``, ``p95_latency_ms`` and ``p99_latency_ms`` are of the
        successful ones, in milliseconds, with every wait and retry; percentiles are true to 2.2 %.
        ``errors`` counts by code. ``in_flight`` and ``waiting`` are of this moment. ``endpoints``
        has the same for each endpoint by name, and there ``models`` for each model.
        """
        return self._running().stats()

    @property
    def circuit_breaker(self) -> CircuitBreaker:
        """The circuit breaker of the default endpoint and model."""
        return breaker_of(self._router)

    @property
    def circuit_breakers(self) -> dict[str, CircuitBreaker]:
        """All circuit breakers by name: "endpoint" and, once called, "endpoint/model"."""
        return breakers_of(self._router)

    def hear(self) -> None:
        """Take over what other processes know of circuits by now; that takes 50 ms at most.

        Calls and health checks do so by themselves.
        """
        self._running().hear()

    @property
    def endpoints(self) -> dict[str, EndpointFacts]:
        """All endpoints by name: address, model, and for how long it asked to be left alone."""
        return endpoints_of(self._router())

    @property
    def routes(self) -> dict[str, RouteFacts]:
        """All routes of the settings by name: strategy and targets."""
        return routes_of(self._router())

    @property
    def running_since(self) -> datetime | None:
        """When circuits and counters began: at the first call, and after a change of settings."""
        return self._running_since

    def governed_by(self, governor: Governor) -> None:
        """Let something else move the circuits too, from the next start on; ``apps`` does."""
        self._governor = governor

    def mode_changed(self, endpoint: str) -> None:
        """Take over at once the mode that an operator has just stored for an endpoint."""
        governing = self._governing
        if governing is not None and self._engine is not None:
            governing.look(endpoint)

    def close(self) -> None:
        """Close idle connections and forget circuits. The next call starts afresh."""
        self._stop(forget=True)

    async def aclose(self) -> None:
        """Do as ``close`` does; this loop's connections are closed when it returns."""
        engine = self._engine
        await asyncio.to_thread(self._stop, forget=True)
        if engine is not None:
            await engine.aclose()

    def _stop(self, *, forget: bool) -> None:
        with self._lock:
            engine = self._engine or self._inherited
            self._engine = self._inherited = self._running_since = None
            governing = self._governing
            if forget:
                self._governing = None
        if engine is not None:
            engine.close()
        if governing is not None:
            governing.end()

    def _settings(self) -> conf.Settings:
        engine = self._engine
        if engine is not None:
            return engine.settings
        return conf.Settings.build(self._overrides) if self._overrides else conf.current()

    async def _arunning(self) -> Engine:
        """Return the engine; the first call starts it in a thread, since that may take a while."""
        engine = self._engine
        if engine is None or engine.async_transport is None:
            engine = await asyncio.to_thread(self._astart)
        return engine

    def _astart(self) -> Engine:
        engine = self._running()
        try:
            engine.load_async()
        except ModuleNotFoundError as error:
            if error.name != "aiohttp":
                raise
            raise ImproperlyConfigured(
                "Async calls need aiohttp. Type: pip install 'django-ollama-bridge[async]'"
            ) from None
        return engine

    def _router(self) -> Router:
        return self._running().router

    def _running(self) -> Engine:
        return self._engine or self._start()

    def _start(self) -> Engine:
        with self._lock:
            if self._engine is not None:
                return self._engine
            engine = self._inherited or self._new()
            engine.join()
            # All first callers wait here for what is stored, and for what other processes know;
            # the governor sees to it that this is not for long.
            until = time.monotonic() + _FIRST
            if self._governor is not None:
                governed = Governed(engine.router, engine.listeners, engine.wait)
                self._governing = self._governor(governed, self._governing)
            engine.wait(max(0.0, until - time.monotonic()))
            is_new = self._inherited is None
            self._engine, self._inherited = engine, None
        if is_new:
            engine.announce()
        return engine

    def _new(self) -> Engine:
        # Loads requests, which takes a while: not before somebody calls.
        from .engine import Engine  # noqa: PLC0415

        settings = self._settings()
        store, answers = store_of(settings), answer_store_of(settings)
        self._running_since = datetime.now(UTC)
        return Engine(settings, store, answers)

    def _after_fork(self) -> None:
        """Keep what is known; the first call of the child starts again what a fork ends."""
        self._lock = threading.Lock()
        engine = self._engine or self._inherited
        if engine is not None:
            engine.after_fork()
        self._engine, self._inherited = None, engine


ollama_client = OllamaClient()


def _setting(argument: str) -> str:
    names = [declared.name for declared in fields(conf.Settings)]
    if argument.islower() and argument.upper() in names:
        return argument.upper()
    near = difflib.get_close_matches(argument.upper(), names, n=1)
    hint = f". Did you mean {near[0].lower()!r}?" if near else ""
    raise TypeError(f"OllamaClient() got an unexpected argument {argument!r}{hint}")


@receiver(setting_changed)
def _forget_settings(*, setting: str, **_: object) -> None:
    if setting == conf.DICT:
        for client in list(_clients):
            client._stop(forget=False)  # noqa: SLF001  # our own


@atexit.register
def _close_all() -> None:
    for client in list(_clients):
        client.close()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()  # noqa: SLF001  # our own


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
