"""How many chunks a processor core relays to browsers."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests

from .. import peers
from ..askers import QUESTION
from ..contest import Benchmark, CannotRunError, Contestant, Unit
from ..figures import Goal
from ..looped import looped
from ..peers import invited
from ..site import site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_READERS: Final = 50
_PAUSE: Final = 0.02
_DELTA: Final = b"event: delta\n"
_DONE: Final = b"event: done\n"
_TIMEOUT: Final = 60


@contextmanager
def gather(calls: int) -> Iterator[Sequence[Contestant]]:
    """Give the contestants; each relays streams of so many chunks."""
    needed = next((each for each in ("uvicorn", "aiohttp") if not peers.is_here(each)), "aiohttp")
    with ExitStack() as stack:
        if peers.is_here(needed):
            url = stack.enter_context(site(stack.enter_context(looped(chunks=calls, pause=_PAUSE))))

        def prepare(path: str) -> Callable[[], float]:
            return partial(_turn, url, path, calls)

        yield [
            invited("ours", "ollama_bridge, chat/", needed, partial(prepare, "/api/chat/")),
            invited("bare", "an async view by hand", needed, partial(prepare, "/relay/")),
        ]


def _turn(url: str, path: str, calls: int) -> float:
    """Return the processor's seconds that the site takes for a chunk."""
    before = _processor_time(url)
    asyncio.run(_crowd(url, path, calls))
    return (_processor_time(url) - before) / calls / _READERS


def _processor_time(url: str) -> float:
    return float(requests.get(f"{url}/processor/", timeout=_TIMEOUT).text)


async def _crowd(url: str, path: str, calls: int) -> None:
    async with asyncio.timeout(_TIMEOUT):
        await asyncio.gather(*(_read(url, path, calls) for _ in range(_READERS)))


async def _read(url: str, path: str, calls: int) -> None:
    """Be a browser that costs next to nothing: count the events up to the last."""
    where = urlsplit(url)
    body = json.dumps({"message": QUESTION}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAccept: text/event-stream\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        writer.write(head.encode() + body)
        received = await reader.read()
    finally:
        writer.close()
    if received.count(_DELTA) != calls or received.count(_DONE) != 1:
        status = received.partition(b"\r\n")[0].decode(errors="replace")
        raise CannotRunError(f"{path} answered {status} with {received.count(_DELTA)} chunks")


BENCHMARK: Final = Benchmark(
    name="relay",
    what=(
        f"One chunk as a server-sent event, in one process of uvicorn with {_READERS} streams at "
        f"once that bring one every {_PAUSE * 1000:.0f} ms each: processor time of that process "
        "over streams of {calls} chunks, the requests with all their middleware included."
    ),
    unit=Unit.SECONDS,
    rounds=9,
    calls=200,
    gather=gather,
    peer="bare",
    goal=Goal(of="ours", limit=2, is_ratio=True),
)
