"""Many users who ask at once, and wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp

from ollama_bridge.testing import FakeOllama

from .databases import Database
from .running import BOUND, UVICORN, Server, serving
from .upstreams import Stepped

AT_A_TIME = 20
"""Who come at the same moment; each of them has a thread, and a connection, until he waits."""

_CSRF_TOKEN = 32 * "x"


@contextmanager
def site_for_members(
    database: Database, ollama: FakeOllama, commit_after: float
) -> Iterator[Server]:
    """Serve a site with uvicorn that wants sessions, and sets no limits to anybody."""
    with serving(UVICORN, ollama.url, database=database) as server:
        server.configure(
            PERMISSION_CLASSES=["rest_framework.permissions.IsAuthenticated"],
            MAX_CALLS_PER_USER=None,
            SSE_COMMIT_AFTER=commit_after,
        )
        yield server


class Waited(NamedTuple):
    """What a look at those who wait found, and how many got which answer at last."""

    seen: Any
    answers: Counter[str]


class Crowd:
    """So many streams and plain chats of one logged-in user."""

    def __init__(self, server: Server, ollama: FakeOllama, *, streams: int, chats: int) -> None:
        self._number = {True: streams, False: chats}
        self._ollama = ollama
        self._url = f"http://127.0.0.1:{server.port}/api/chat/"
        self._tasks: list[asyncio.Task[str]] = []
        self._begun = 0
        with server.request("GET", "/controls/enter/") as answer:
            session = answer.headers["Set-Cookie"].partition(";")[0]
        self._headers = {
            "Cookie": f"{session}; csrftoken={_CSRF_TOKEN}",
            "X-CSRFToken": _CSRF_TOKEN,
        }

    def wait(self, begun: int, look: Callable[[], Any]) -> Waited:
        """Come, look while all wait and so many responses have begun, and take the answers."""
        return asyncio.run(self._wait(begun, look))

    async def _wait(self, begun: int, look: Callable[[], Any]) -> Waited:
        stepped = Stepped()
        self._ollama.misbehave(stepped)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=6 * BOUND),
        ) as session:
            for is_streamed in (True, False):
                await self._come(session, is_streamed=is_streamed)
            await self._until(lambda: self._begun == begun)
            seen = await asyncio.to_thread(look)
            stepped.finish()
            return Waited(seen, Counter(await asyncio.gather(*self._tasks)))

    async def _come(self, session: aiohttp.ClientSession, *, is_streamed: bool) -> None:
        number = self._number[is_streamed]
        for at in range(0, number, AT_A_TIME):
            for _ in range(min(AT_A_TIME, number - at)):
                asking = self._ask(session, is_streamed=is_streamed)
                self._tasks.append(asyncio.create_task(asking))
            await self._until(lambda: self._ollama.in_flight == len(self._tasks))

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not condition():
                await asyncio.sleep(0.002)
                for task in self._tasks:
                    assert not task.done(), task.result()

    async def _ask(self, session: aiohttp.ClientSession, *, is_streamed: bool) -> str:
        question = {"message": "What is water?", "stream": is_streamed}
        async with session.post(self._url, json=question) as answer:
            self._begun += 1
            text = await answer.text()
        done = '"success": true' if is_streamed else '"success":true'
        return f"{answer.status} {answer.content_type} {'whole' if done in text else text}"
