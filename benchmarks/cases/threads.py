"""Whether 100 chats at once take longer than one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final

from .. import askers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..upstream import upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..askers import Ask, Asker


@contextmanager
def gather(callers: int, *, seconds: float = 1.0) -> Iterator[Sequence[Contestant]]:
    """Give the contestants; each has so many callers, and each answer takes so many seconds."""
    with ExitStack() as stack:
        url = stack.enter_context(upstream(delay=seconds))

        def shared(asker: Asker) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_crowd, [stack.enter_context(asker.open(url))] * callers)

            return invited(asker.key, asker.name, asker.needs, prepare)

        sessions = [stack.enter_context(askers.session(url)) for _ in range(callers)]
        yield [
            shared(askers.OURS),
            Contestant(
                key="session", name="a requests.Session each", turn=partial(_crowd, sessions)
            ),
            shared(askers.OFFICIAL),
        ]


def _crowd(asks: Sequence[Ask]) -> float:
    """Return the seconds from the start of all, in threads that wait for it, to the last answer."""
    start = threading.Barrier(len(asks) + 1)

    def wait_and(ask: Ask) -> str:
        start.wait()
        return ask()

    with ThreadPoolExecutor(len(asks)) as pool:
        answers = [pool.submit(wait_and, ask) for ask in asks]
        start.wait()
        started = perf_counter()
        for answer in answers:
            askers.check(answer.result())
        return perf_counter() - started


BENCHMARK: Final = Benchmark(
    name="threads",
    what=(
        "{calls} chats at once in as many threads, each answered after 1 s: until the last has its "
        "answer. One client of ours, one of ollama's, but a session for each thread."
    ),
    unit=Unit.SECONDS,
    rounds=5,
    calls=100,
    gather=gather,
    peer="session",
    goal=Goal(of="ours", limit=1.15, is_ratio=True, may_equal=True),
)
