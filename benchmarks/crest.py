"""What a process holds while many calls are under way: ``python -m benchmarks.crest``.

It asks in crowds, one after the other, and prints what it held at the crest of each. It is a
process of its own, so that nobody inherits a heap.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from . import aaskers, askers, children, project, streamers
from .process import descriptors, resident

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Call = Callable[[], Awaitable[None]]

_EVERY: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes of memory and number of descriptors."""

    memory: int
    descriptors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was held before the first crowd, and at the crest of each."""

    before: Held
    crests: tuple[Held, ...]


def report(kind: str, key: str, url: str, *, callers: int, crowds: int, chunks: int = 0) -> Report:
    """Let so many callers call at once, several times, in a new process.

    Args:
        kind: "chats" or "streams".
        key: of the one who calls.
        url: of the server.
        callers: that call at once.
        crowds: of them, one after the other.
        chunks: that each stream shall bring.

    Raises:
        CannotRunError: it failed.
    """
    printed = children.figures_of("benchmarks.crest", kind, key, url, callers, crowds, chunks)
    told = json.loads(printed)
    return Report(
        before=Held(**told["before"]), crests=tuple(Held(**each) for each in told["crests"])
    )


def _held() -> Held:
    return Held(memory=resident(), descriptors=descriptors())


async def measure(call: Call, callers: int, crowds: int) -> Report:
    """Return what this process holds before and in so many crowds, once it is warm."""
    await call()
    gc.collect()
    before = _held()
    return Report(before=before, crests=tuple([await _crest(call, callers) for _ in range(crowds)]))


async def _crest(call: Call, callers: int) -> Held:
    """Return the most that is held at any time while all call at once."""
    crowd = asyncio.gather(*(call() for _ in range(callers)))
    found = [_held()]
    while not crowd.done():
        await asyncio.wait([crowd], timeout=_EVERY)
        found.append(_held())
    crowd.result()
    gc.collect()
    return Held(
        memory=max(each.memory for each in found),
        descriptors=max(each.descriptors for each in found),
    )


@asynccontextmanager
async def _chats(asker: aaskers.AsyncAsker, url: str, _: int) -> AsyncIterator[Call]:
    async with asker.open(url) as ask:

        async def call() -> None:
            askers.check(await ask())

        yield call


@asynccontextmanager
async def _streams(streamer: streamers.AsyncStreamer, url: str, chunks: int) -> AsyncIterator[Call]:
    async with streamer.open(url) as read:

        async def call() -> None:
            taken: list[str] = []
            await read(taken.append)
            streamers.check(taken, chunks)

        yield call


_CALLS: Final[dict[str, Callable[[str, int], AbstractAsyncContextManager[Call]]]] = {
    **{
        f"chats {each.key}": partial(_chats, each)
        for each in (aaskers.OURS, aaskers.UNLIMITED, aaskers.BARE)
    },
    **{
        f"streams {each.key}": partial(_streams, each)
        for each in (streamers.ASYNC_OURS, streamers.ASYNC_BARE)
    },
}


async def _run(which: str, url: str, callers: int, crowds: int, chunks: int) -> Report:
    async with _CALLS[which](url, chunks) as call:
        return await measure(call, callers, crowds)


def main() -> None:
    """Ask, and print what was held."""
    children.leave_interrupts_to_the_parent()
    children.allow_many_connections()
    kind, key, url, *numbers = sys.argv[1:]
    project.set_up()
    callers, crowds, chunks = map(int, numbers)
    found = asyncio.run(_run(f"{kind} {key}", url, callers, crowds, chunks))
    sys.stdout.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
