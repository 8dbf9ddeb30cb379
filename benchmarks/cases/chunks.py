"""What one chunk of a stream costs its reader."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Final

from .. import streamers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..looped import looped
from ..loops import event_loop
from ..peers import invited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..loops import Loop
    from ..streamers import AsyncRead, AsyncStreamer, Read, Streamer

_READERS: Final = 100
_ASYNC: Final = (streamers.ASYNC_OURS, streamers.ASYNC_OFFICIAL, streamers.ASYNC_BARE)
_SYNC: Final = (streamers.OURS, streamers.OFFICIAL, streamers.SESSION)


@contextmanager
def _gather(calls: int, *, pause: float) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(looped(chunks=calls, pause=pause))

        def invite(streamer: Streamer) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_turn, stack.enter_context(streamer.open(url)), calls)

            return invited(streamer.key, streamer.name, streamer.needs, prepare)

        yield [invite(each) for each in _SYNC]


@contextmanager
def _gather_async(
    calls: int, *, readers: int = 1, pause: float = 0.0
) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(looped(chunks=calls, pause=pause))
        loop = stack.enter_context(event_loop())

        def invite(streamer: AsyncStreamer) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_async_turn, loop, loop.enter(streamer.open(url)), calls, readers)

            return invited(streamer.key, streamer.name, streamer.needs, prepare)

        yield [invite(each) for each in _ASYNC]


def _turn(read: Read, calls: int) -> float:
    taken: list[str] = []
    started = process_time()
    read(taken.append)
    seconds = process_time() - started
    streamers.check(taken, calls)
    return seconds / calls


def _async_turn(loop: Loop, read: AsyncRead, calls: int, readers: int) -> float:
    return loop.run(_crowd(read, calls, readers))


async def _crowd(read: AsyncRead, calls: int, readers: int) -> float:
    """Return the processor's seconds for a chunk, over all streams."""
    taken: list[list[str]] = [[] for _ in range(readers)]
    started = process_time()
    await asyncio.gather(*(read(each.append) for each in taken))
    seconds = process_time() - started
    for each in taken:
        streamers.check(each, calls)
    return seconds / calls / readers


ASTREAM: Final = Benchmark(
    name="astream",
    what=(
        f"One chunk, while {_READERS} streams at once on one event loop bring one every 20 ms "
        "each, as models do: processor time of the client over streams of {calls} chunks."
    ),
    unit=Unit.SECONDS,
    rounds=15,
    calls=50,
    gather=partial(_gather_async, readers=_READERS, pause=0.02),
    peer="official",
    goal=Goal(of="ours", limit=0.4, is_ratio=True),
)
BURST: Final = Benchmark(
    name="astream_burst",
    what=(
        "The same of one stream of {calls} chunks that come 64 at once, as after a while in "
        "which the reader was busy: what remains is the parsing."
    ),
    unit=Unit.SECONDS,
    rounds=20,
    calls=4000,
    gather=_gather_async,
    peer="official",
    goal=Goal(of="ours", limit=0.4, is_ratio=True),
)
STREAM: Final = Benchmark(
    name="stream",
    what=(
        "One chunk of a stream in a thread, one every 1 ms: processor time of the client over a "
        "stream of {calls} chunks."
    ),
    unit=Unit.SECONDS,
    rounds=20,
    calls=300,
    gather=partial(_gather, pause=0.001),
    peer="official",
    goal=Goal(of="ours", limit=0.8, is_ratio=True),
)
