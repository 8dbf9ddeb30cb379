"""What one chat costs, where the server answers at once."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from .. import askers
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..project import logging_at
from ..replies import ANSWER
from ..rounds import mean
from ..upstream import upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..askers import Ask, Asker

# One call of LiteLLM takes as long as many of the others, so a tenth of them is enough to tell.
_FEWER: Final = 10


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(upstream())

        def invite(asker: Asker, times: int = calls) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_turn, stack.enter_context(asker.open(url)), times)

            return invited(asker.key, asker.name, asker.needs, prepare)

        ours = stack.enter_context(askers.bridge(url))
        yield [
            invite(askers.OURS),
            Contestant(
                key="logging",
                name="ollama_bridge, log at INFO",
                turn=partial(_talkative_turn, ours, calls),
            ),
            invite(askers.OFFICIAL),
            invite(askers.SESSION),
            invite(askers.ADAPTER),
            invite(askers.ROUTER, max(1, calls // _FEWER)),
        ]


def _turn(ask: Ask, calls: int) -> float:
    askers.check(ask())
    return mean(ask, calls)


def _talkative_turn(ask: Ask, calls: int) -> float:
    with logging_at(logging.INFO):
        return _turn(ask, calls)


BENCHMARK: Final = Benchmark(
    name="chat",
    what=(
        f"One chat, one after the other on a kept connection to a server that answers at once "
        f"with {len(ANSWER)} characters; log at WARNING. LiteLLM has a tenth of the calls, and "
        "often opens another connection by itself."
    ),
    unit=Unit.SECONDS,
    rounds=40,
    calls=150,
    gather=_gather,
    peer="official",
    goal=Goal(of="ours", limit=0.8, is_ratio=True),
)
