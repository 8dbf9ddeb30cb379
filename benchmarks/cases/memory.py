"""Whether memory stays flat."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from .. import askers, children
from ..contest import Benchmark, Contestant, Unit
from ..figures import Goal
from ..peers import invited
from ..upstream import upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..askers import Asker


@contextmanager
def _gather(calls: int) -> Iterator[Sequence[Contestant]]:
    with ExitStack() as stack:
        url = stack.enter_context(upstream())

        def invite(asker: Asker) -> Contestant:
            def prepare() -> Callable[[], float]:
                return partial(_in_a_process, asker.key, url, calls)

            return invited(asker.key, asker.name, asker.needs, prepare)

        yield [invite(askers.OURS), invite(askers.OFFICIAL)]


def _in_a_process(key: str, url: str, calls: int) -> float:
    return float(children.figures_of("benchmarks.growth", key, url, calls))


BENCHMARK: Final = Benchmark(
    name="memory",
    what=(
        "By how much a process grows over {calls} chats, one after the other, after some to warm "
        "up: resident memory, garbage collected before both readings."
    ),
    unit=Unit.BYTES,
    rounds=1,
    calls=20_000,
    gather=_gather,
    goal=Goal(of="ours", limit=1024 * 1024),
    warm_up=False,
)
