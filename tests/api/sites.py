"""The site as servers run it, under WSGI and under ASGI, behind one face."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIHandler
from rest_framework.test import APIClient, force_authenticate

from . import sse

if TYPE_CHECKING:
    from types import TracebackType

LONGEST = 20.0  # seconds for which a test waits for what must come

JSON = {"Accept": "application/json"}
EVENTS = {"Accept": "text/event-stream"}
OPEN = ["rest_framework.permissions.AllowAny"]
MEMBER = User(pk=7, username="ada")
STAFF = User(pk=8, username="grace", is_staff=True)


def wait_until(predicate: Callable[[], bool]) -> None:
    """Wait for what nobody tells of."""
    end = time.monotonic() + LONGEST
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.002)


class Answer:
    """A response on its way, as its client has it."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers

    def read(self) -> bytes:
        """Return what comes next, b"" at the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave it where it is."""
        raise NotImplementedError

    @property
    def is_streamed(self) -> bool:
        return self.headers["Content-Type"] == "text/event-stream"

    def rest(self) -> bytes:
        return b"".join(iter(self.read, b""))

    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.rest())

    def events(self) -> list[sse.Event]:
        """Read on to the end, and return what has not been read before."""
        assert self.is_streamed
        return sse.parse(self.rest())


class Site:
    """Use it as a context manager, which leaves what is still under way."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], who: User | None
    ) -> Future[Answer]:
        """Send a request; its answer is there as soon as it has a status."""
        raise NotImplementedError

    def begin(
        self, who: User | None = MEMBER, headers: Mapping[str, str] = EVENTS, **fields: object
    ) -> Future[Answer]:
        """Post fields to ``chat/``; a message is there unless it is given."""
        body = json.dumps({"message": "What is water?"} | fields).encode()
        return self.send("POST", "/api/chat/", body, headers, who)

    def post(
        self, who: User | None = MEMBER, headers: Mapping[str, str] = EVENTS, **fields: object
    ) -> Answer:
        return self.begin(who, headers, **fields).result(LONGEST)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        return self.send("GET", path, b"", headers, None).result(LONGEST)


class Wsgi(Site):
    name = "wsgi"

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(8)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for answer in self.answers:
            answer.close()
        self._threads.shutdown()

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], who: User | None
    ) -> Future[Answer]:
        client = APIClient(raise_request_exception=False)
        if who is not None:
            client.force_authenticate(who)

        def ask() -> Answer:
            response: Any = client.generic(
                method, path, body.decode(), content_type="application/json", headers=dict(headers)
            )
            self.answers.append(_WsgiAnswer(response, self._threads))
            return self.answers[-1]

        return self._threads.submit(ask)


class _WsgiAnswer(Answer):
    def __init__(self, response: Any, threads: ThreadPoolExecutor) -> None:
        super().__init__(response.status_code, response.headers)
        self._threads = threads
        self._response = response
        self._pieces = iter(
            response.streaming_content if response.streaming else [response.content]
        )

    def read(self) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        self._threads.submit(self._response.close).result(LONGEST)


class Asgi(Site):
    """One loop for all requests of a test, each through Django's own handler."""

    name = "asgi"

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for answer in self.answers:
            answer.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], who: User | None
    ) -> Future[Answer]:
        answer = _AsgiAnswer(self._loop, body)
        self.answers.append(answer)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), text.encode()) for name, text in sent.items()],
            "client": ["127.0.0.1", 1],
            "server": ["testserver", "80"],
        }
        self._loop.call_soon_threadsafe(answer.start, _Handler(who), scope)
        return answer.came


class _Handler(ASGIHandler):
    def __init__(self, who: User | None) -> None:
        super().__init__()
        self._who = who

    def create_request(self, scope: Any, body_file: Any) -> Any:
        request, error = super().create_request(scope, body_file)
        if request is not None and self._who is not None:
            force_authenticate(request, self._who)
        return request, error


class _AsgiAnswer(Answer):
    """Takes one piece at a time, as a connection without any buffer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes) -> None:
        super().__init__(0, {})
        self.came: Future[Answer] = Future()
        self._loop = loop
        self._body: bytes | None = body
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._left = asyncio.Event()
        self._call: asyncio.Task[None] | None = None

    def start(self, handler: ASGIHandler, scope: Any) -> None:
        self._call = self._loop.create_task(handler(scope, self._receive, self._send))
        self._call.add_done_callback(self._ended)

    def read(self) -> bytes:
        return asyncio.run_coroutine_threadsafe(self._next(), self._loop).result(LONGEST)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(LONGEST)

    async def _next(self) -> bytes:
        assert self._call is not None
        piece = asyncio.ensure_future(self._pieces.get())
        await asyncio.wait({piece, self._call}, return_when=asyncio.FIRST_COMPLETED)
        if not piece.done() and self._pieces.empty():
            piece.cancel()
            return b""
        return await piece

    async def _leave(self) -> None:
        assert self._call is not None
        self._left.set()
        await self._call

    async def _receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): text.decode() for name, text in message["headers"]}
            self.came.set_result(self)
        elif message.get("body"):
            await self._pieces.put(message["body"])

    def _ended(self, call: asyncio.Task[None]) -> None:
        if not self.came.done():
            self.came.set_exception(call.exception() or ConnectionAbortedError("left"))


SITES: list[type[Site]] = [Wsgi, Asgi]
