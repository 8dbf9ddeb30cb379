"""By how much the first chunk of a stream comes later than it could."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from time import perf_counter
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

    Wait = Callable[[], float]

_CHUNKS: Final = 3


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(looped(chunks=_CHUNKS))
        loop = stack.enter_context(event_loop())

        def thread(streamer: Streamer) -> Wait:
            return partial(_wait, stack.enter_context(streamer.open(url)))

        def task(streamer: AsyncStreamer) -> Wait:
            return partial(_wait_on, loop, loop.enter(streamer.open(url)))

        ours, session = thread(streamers.OURS), thread(streamers.SESSION)
        async_ours = task(streamers.ASYNC_OURS)
        bare = streamers.ASYNC_BARE

        def beside_bare(turn: Callable[[Wait], float]) -> Callable[[], Callable[[], float]]:
            return lambda: partial(turn, task(bare))

        yield [
            invited(
                "ours",
                "added by astream() to aiohttp",
                bare.needs,
                beside_bare(lambda wait: _added(async_ours, wait, calls)),
            ),
            Contestant(
                key="sync",
                name="added by stream() to requests",
                turn=partial(_added, ours, session, calls),
            ),
            invited("bare", bare.name, bare.needs, beside_bare(lambda wait: _median(wait, calls))),
            Contestant(
                key="session", name="requests.Session", turn=partial(_median, session, calls)
            ),
            invited(
                "async_official",
                "ollama.AsyncClient",
                "ollama",
                lambda: partial(_median, task(streamers.ASYNC_OFFICIAL), calls),
            ),
            invited(
                "official",
                "ollama.Client",
                "ollama",
                lambda: partial(_median, thread(streamers.OFFICIAL), calls),
            ),
        ]


class _First:
    """Takes chunks, and knows when the first one came."""

    def __init__(self) -> None:
        self.at = 0.0
        self.texts: list[str] = []

    def take(self, text: str) -> None:
        if not self.texts:
            self.at = perf_counter()
        self.texts.append(text)

    def since(self, started: float) -> float:
        streamers.check(self.texts, _CHUNKS)
        return self.at - started


def _wait(read: Read) -> float:
    first, started = _First(), perf_counter()
    read(first.take)
    return first.since(started)


def _wait_on(loop: Loop, read: AsyncRead) -> float:
    """Return the seconds from within the loop: to enter it is not part of the wait."""

    async def wait() -> float:
        first, started = _First(), perf_counter()
        await read(first.take)
        return first.since(started)

    return loop.run(wait())


def _median(wait: Wait, calls: int) -> float:
    return median(wait() for _ in range(calls))


def _added(ours: Wait, bare: Wait, calls: int) -> float:
    """Return the seconds that ours takes longer; each takes its turn before or after the other."""
    pairs = [(ours(), bare()) if number % 2 else (bare(), ours())[::-1] for number in range(calls)]
    return median(mine for mine, _ in pairs) - median(other for _, other in pairs)


BENCHMARK: Final = Benchmark(
    name="first_token",
    what=(
        "From the call to the first chunk, on a kept connection to a server that sends it at once: "
        "what the bridge adds to the bare library, the two call by call in turn, and the whole "
        "wait of the others; medians of {calls}."
    ),
    unit=Unit.SECONDS,
    rounds=15,
    calls=60,
    gather=_gather,
    goal=Goal(of="ours", limit=250e-6),
)
