"""Where calls run: in threads, or as tasks on one event loop.

What calls is a coroutine in both cases. In a thread it never waits for anything but what holds the
thread itself, so it runs to its end at once; on the loop it waits as coroutines do.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import TypeAlias

    Work: TypeAlias = "Coroutine[Any, Any, T]"

T = TypeVar("T")

# The loop closes in no time; but a name that is being looked up cannot be given up.
_PATIENCE = 5.0


class Runner(Protocol):
    """A context manager: nothing runs in it after the block, as far as that can be helped."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, work: Work[T]) -> T:
        """Run one piece of work to its end. An interrupt ends it."""

    def start(self, work: Callable[[], Work[T]], copies: int = 1) -> list[Future[T]]:
        """Begin so many pieces of work together, beside this thread and with its context."""

    def leave(self, begun: Iterable[Future[Any]]) -> None:
        """End what was started, as soon as that can be done; do not wait for it."""

    async def pause(self, seconds: float) -> None:
        """Let time pass within a piece of work."""


class Threads:
    """A thread for each piece of work. They are daemons: what hangs does not hold up the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the threads to themselves."""

    def run(self, work: Work[T]) -> T:
        return _finished(work)

    def start(self, work: Callable[[], Work[T]], copies: int = 1) -> list[Future[T]]:
        gate = threading.Event()
        begun: list[Future[T]] = [Future() for _ in range(copies)]
        try:
            for each in begun:
                context = copy_context()
                wait_and_work = (_fulfil, each, work, gate)
                threading.Thread(target=context.run, args=wait_and_work, daemon=True).start()
        except BaseException:  # no further thread, or an interrupt: those who wait shall not begin
            self.leave(begun)
            raise
        finally:
            gate.set()
        return begun

    def leave(self, begun: Iterable[Future[Any]]) -> None:
        for each in begun:
            each.cancel()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # this thread has nothing else to do


class EventLoop:
    """A task for each piece of work, all on one loop in one thread.

    After the block the tasks are cancelled, and the connections of the loop are closed.
    """

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE)

    def run(self, work: Work[T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def start(self, work: Callable[[], Work[T]], copies: int = 1) -> list[Future[T]]:
        return [asyncio.run_coroutine_threadsafe(work(), self._loop) for _ in range(copies)]

    def leave(self, begun: Iterable[Future[Any]]) -> None:
        for each in begun:
            each.cancel()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _live(self) -> None:
        with self._runner as runner:
            runner.run(self._until_the_end())

    async def _until_the_end(self) -> None:
        await self._end.wait()


def _fulfil(future: Future[T], work: Callable[[], Work[T]], gate: threading.Event) -> None:
    gate.wait()
    if future.set_running_or_notify_cancel():
        try:
            result = _finished(work())
        except BaseException as error:  # noqa: BLE001  # raised again by ``result()``
            future.set_exception(error)
        else:
            future.set_result(result)


def _finished(work: Work[T]) -> T:
    """Return the result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise TypeError("what runs in a thread cannot wait for a loop")
