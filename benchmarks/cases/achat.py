"""What one chat costs among 100 at once, on one event loop."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from time import process_time
from typing import TYPE_CHECKING, Final

from .. import aaskers, askers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..looped import looped
from ..loops import event_loop
from ..peers import invited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..aaskers import AsyncAsk, AsyncAsker
    from ..loops import Loop

CALLERS: Final = 100
# One call of the official client takes as long as many of the others.
_FEWER: Final = 4


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(looped())
        loop = stack.enter_context(event_loop())

        def invite(asker: AsyncAsker, times: int = calls) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_turn, loop, loop.enter(asker.open(url)), times)

            return invited(asker.key, asker.name, asker.needs, prepare)

        fewer = max(1, calls // _FEWER)
        yield [
            invite(aaskers.OURS),
            invite(aaskers.OFFICIAL, fewer),
            invite(aaskers.UNLIMITED, fewer),
            invite(aaskers.BARE),
            invite(aaskers.ROUTER, fewer),
        ]


def _turn(loop: Loop, ask: AsyncAsk, calls: int) -> float:
    return loop.run(_crowd(ask, calls))


async def _crowd(ask: AsyncAsk, calls: int) -> float:
    """Return the processor's seconds for a call; each caller has its next when it is answered."""

    async def one_after_the_other() -> str:
        for _ in range(calls - 1):
            await ask()
        return await ask()

    askers.check(await ask())
    started = process_time()
    answers = await asyncio.gather(*(one_after_the_other() for _ in range(CALLERS)))
    seconds = process_time() - started
    for answer in answers:
        askers.check(answer)
    return seconds / calls / CALLERS


BENCHMARK: Final = Benchmark(
    name="achat",
    what=(
        f"One chat among {CALLERS} at once on one event loop: processor time of the client, to a "
        "server that answers at once. httpx keeps 20 connections and opens the others anew, "
        "hence the row without its limits. It and LiteLLM have a quarter of the calls."
    ),
    unit=Unit.SECONDS,
    rounds=15,
    calls=12,
    gather=_gather,
    peer="official",
    goal=Goal(of="ours", limit=0.25, is_ratio=True),
)
