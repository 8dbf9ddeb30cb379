"""What 1,000 calls at once hold of the machine, and whether that stays flat."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from .. import aaskers, crest, streamers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..looped import looped
from ..peers import invited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..crest import Report

    Reading = Callable[[Report], float]

_ANSWERED_AFTER: Final = 2.0
_CHUNKS: Final = 100
_FEWER: Final = 20
_PAUSE: Final = 0.1
_CROWDS: Final = 4
_STREAMERS: Final = (streamers.ASYNC_OURS, streamers.ASYNC_BARE)


@contextmanager
def gather_chats(
    callers: int, *, seconds: float = _ANSWERED_AFTER
) -> Iterator[Sequence[Contestant]]:
    """Give the contestants; each answer takes long enough for all to be under way."""
    with looped(delay=seconds) as url:

        def turn(key: str) -> float:
            found = crest.report("chats", key, url, callers=callers, crowds=1)
            return (found.crests[0].memory - found.before.memory) / callers

        yield [
            invited(each.key, each.name, each.needs, lambda key=each.key: partial(turn, key))  # type: ignore[misc]
            for each in (aaskers.OURS, aaskers.UNLIMITED, aaskers.BARE)
        ]


@contextmanager
def gather_streams(
    callers: int, *, growth: Reading, each: Reading, chunks: int = _CHUNKS, pause: float = _PAUSE
) -> Iterator[Sequence[Contestant]]:
    """Give the contestants, each with what it has grown by and with what one stream holds."""
    with ExitStack() as stack:
        url = stack.enter_context(looped(chunks=chunks, pause=pause))

        @cache
        def report(key: str) -> Report:
            return crest.report("streams", key, url, callers=callers, crowds=_CROWDS, chunks=chunks)

        def turns(streamer: streamers.AsyncStreamer) -> list[Contestant]:
            key, needs = streamer.key, streamer.needs
            return [
                invited(key, streamer.name, needs, lambda: lambda: growth(report(key))),
                invited(
                    f"{key}_each",
                    "… for each stream",
                    needs,
                    lambda: lambda: each(report(key)) / callers,
                ),
            ]

        yield [contestant for streamer in _STREAMERS for contestant in turns(streamer)]


def grown_memory(found: Report) -> float:
    """Return the growth since the second crowd: the first one leaves the heap as they need it."""
    return found.crests[-1].memory - found.crests[1].memory


def memory(found: Report) -> float:
    return found.crests[-1].memory - found.before.memory


def grown_descriptors(found: Report) -> float:
    return found.crests[-1].descriptors - found.crests[0].descriptors


def opened(found: Report) -> float:
    """Return how many were opened; one was there before, of the call that warmed up."""
    return found.crests[-1].descriptors - found.before.descriptors + 1


CHATS: Final = Benchmark(
    name="crowd_memory",
    what=(
        "{calls} chats at once on one event loop in a new process: how much more memory it "
        "occupies for each at the crest, connections included."
    ),
    unit=Unit.BYTES,
    rounds=1,
    calls=1000,
    gather=gather_chats,
    goal=Goal(of="ours", limit=64 * 1024),
    warm_up=False,
)
MEMORY: Final = Benchmark(
    name="streams_memory",
    what=(
        f"{{calls}} streams of {_CHUNKS} chunks at once in one process, {_CROWDS} times over: by "
        "how much the most memory grows from the second time to the last, and how much of it each "
        "stream takes."
    ),
    unit=Unit.BYTES,
    rounds=1,
    calls=1000,
    gather=partial(gather_streams, growth=grown_memory, each=memory),
    goal=Goal(of="ours", limit=1024 * 1024),
    warm_up=False,
)
DESCRIPTORS: Final = Benchmark(
    name="streams_files",
    what=(
        f"{{calls}} streams of {_FEWER} chunks at once in one process, {_CROWDS} times over: by "
        "how many the most descriptors grow from the first time to the last, and how many each "
        "stream takes."
    ),
    unit=Unit.DESCRIPTORS,
    rounds=1,
    calls=1000,
    gather=partial(gather_streams, growth=grown_descriptors, each=opened, chunks=_FEWER),
    goal=Goal(of="ours", limit=0, may_equal=True),
    warm_up=False,
)
