"""Whether 1,000 chats at once on one event loop take longer than one."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter
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


@contextmanager
def gather(callers: int, *, seconds: float = 1.0) -> Iterator[Sequence[Contestant]]:
    """Give the contestants; each has so many callers, and each answer takes so many seconds."""
    with ExitStack() as stack:
        url = stack.enter_context(looped(delay=seconds))
        loop = stack.enter_context(event_loop())

        def invite(asker: AsyncAsker) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_turn, loop, loop.enter(asker.open(url)), callers)

            return invited(asker.key, asker.name, asker.needs, prepare)

        yield [invite(aaskers.OURS), invite(aaskers.BARE)]


def _turn(loop: Loop, ask: AsyncAsk, callers: int) -> float:
    return loop.run(_crowd(ask, callers))


async def _crowd(ask: AsyncAsk, callers: int) -> float:
    """Return the seconds from the first question to the last answer."""
    started = perf_counter()
    answers = await asyncio.gather(*(ask() for _ in range(callers)))
    seconds = perf_counter() - started
    for answer in answers:
        askers.check(answer)
    return seconds


BENCHMARK: Final = Benchmark(
    name="crowd",
    what=(
        "{calls} chats at once on one event loop, each answered after 1 s: until the last has its "
        "answer."
    ),
    unit=Unit.SECONDS,
    rounds=7,
    calls=1000,
    gather=gather,
    peer="bare",
    goal=Goal(of="ours", limit=1.15, is_ratio=True, may_equal=True),
)
