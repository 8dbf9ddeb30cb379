"""A coroutine whose task is cancelled at one chosen await."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")
Moment = Literal["begins", "ends"]
MOMENTS: tuple[Moment, ...] = ("begins", "ends")
MOST = 300


class CancelledAt(Generic[T]):
    """Awaits a coroutine, and cancels its task at its ``step``-th await.

    As the await ``begins``, or as it ``ends``: then its result is there already, and the task is
    cancelled in the same round of the loop that would have gone on with it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], step: int, moment: Moment) -> None:
        self._coroutine = coroutine
        self._step = step
        self._moment = moment

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._coroutine.__await__()
        taken, resume, value = 0, steps.send, None
        while True:
            try:
                future: Any = resume(value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            taken += 1
            if taken == self._step:
                self._cancel(future)
            resume, value = steps.send, None
            try:
                yield future
            except BaseException as error:  # noqa: BLE001  # handed on
                resume, value = steps.throw, error

    def _cancel(self, future: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._moment == "begins":
            task.cancel()
        elif future is None:  # a sleep(0)
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            future.add_done_callback(lambda _: task.cancel())


async def cancelled_at(
    make: Callable[[], Coroutine[Any, Any, T]], step: int, moment: Moment
) -> bool:
    """Run it as a task of its own; tell whether it was cancelled, rather than came to its end."""

    async def run() -> T:
        return await CancelledAt(make(), step, moment)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False
